"""`supportbot drift learn`"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from commands.console import fail, say
from commands.drift.monitoring import OutOption, model_layout, new_monitor, write_baseline
from commands.drift.report import say_what_is_missing
from commands.drift.texts import is_log, text_bins
from commands.drift.words import moment
from commands.inputs import (
    FILE_OF_TEXTS,
    BundleOption,
    Delimiter,
    Encoding,
    InputFormat,
    TextColumn,
    check_files,
    check_used,
    table_format,
)
from drift import Baseline, stratum_of
from drift import learn as learned
from models.tables import TableError, TableFormat
from server.observe.drift_log import Tally, read_blocks, read_labels

DAY: Final = 86_400


def learn(
    files: Annotated[list[Path], typer.Argument(help=f"Files of the prediction log, or of texts: {FILE_OF_TEXTS}.")],
    out: OutOption,
    bundle: BundleOption = None,
    begin: Annotated[datetime | None, typer.Option("--from", help="Of a log, leave out what is earlier, in UTC.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="Of a log, leave out what is as late or later, in UTC.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="True labels of a log's texts drawn at random: a file of request_id and label.")
    ] = None,
    strata: Annotated[
        int | None,
        typer.Option(min=1, max=24, help="Parts of the day with counts of their own.", show_default="24; 1 for less than two days"),
    ] = None,
    note: Annotated[str, typer.Option(help="Kept in the baseline, and shown with each report.")] = "",
    text_column: TextColumn = None,
    input_format: InputFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
) -> None:
    """Make a baseline: what is normal.

    Of a log, the texts that the server counted are normal, hour by hour; leave out what was not with --from and --to. Texts of
    other files are classified by the bundle, each different one once; they have no time, so all hours are one. The larger the
    baseline, the smaller the changes that can be noticed: 20,000 texts are a good beginning. The channels are those of the profile
    in the bundle.

    Examples:

        supportbot drift learn predictions.jsonl --from 2026-11-01 --to 2026-11-08 --out baseline.json

        supportbot drift learn tickets.csv --text-column body --out baseline.json
    """
    check_files([*files, *filter(None, [labels])], out)
    table = table_format(input_format, delimiter, encoding, text_column)
    try:
        are_logs = {is_log(path) for path in files}
        if len(are_logs) > 1:
            fail("give prediction logs or files of texts, not both: texts have no hours")
        if are_logs == {True}:
            check_used(table, None, "file of texts")
            baseline = _of_logs(files, bundle, begin, end, labels, strata, note)
        else:
            if any(option is not None for option in (begin, end, labels, strata)):
                fail("--from, --to, --labels and --strata are about prediction logs; these are files of texts")
            baseline = _of_texts(files, bundle, table, note)
    except TableError as error:
        fail(str(error))
    write_baseline(baseline, out)


def _of_texts(files: list[Path], bundle: Path | None, table: TableFormat, note: str) -> Baseline:
    layout = model_layout(bundle)
    blocks = [(0, layout.count_bins(bins)) for path in files for bins in text_bins(path, table, bundle, layout)]
    if not blocks:
        fail(f"{', '.join(map(str, files))}: no texts")
    baseline = learned(layout, blocks, 1, note)
    say(f"{baseline.texts:,} different texts")
    return baseline


def _of_logs(
    files: list[Path],
    bundle: Path | None,
    begin: datetime | None,
    end: datetime | None,
    labels: Path | None,
    strata: int | None,
    note: str,
) -> Baseline:
    layout, tally = model_layout(bundle), Tally()
    seconds = new_monitor(layout, None).promise.block_seconds
    first, last = (None if time is None else time.replace(tzinfo=UTC).timestamp() for time in (begin, end))
    true = read_labels(labels, layout, tally) if labels else None
    blocks = [
        (number * seconds, counts)
        for number, counts in read_blocks(files, layout, seconds, tally, true)
        if (first is None or number * seconds >= first) and (last is None or number * seconds < last)
    ]
    say_what_is_missing(tally)
    if not blocks:
        fail("no text of the log lies within that time")
    span = max(time for time, _ in blocks) - min(time for time, _ in blocks)
    parts = strata or (24 if span >= 2 * DAY else 1)
    baseline = learned(layout, ((stratum_of(time, parts), counts) for time, counts in blocks), parts, note)
    say(f"{baseline.texts:,} texts from {moment(blocks[0][0])} to {moment(blocks[-1][0] + seconds)} UTC, {parts} strata")
    return baseline
