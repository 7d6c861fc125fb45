"""`supportbot drift learn`"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from commands.console import fail, say
from commands.drift.monitoring import OutOption, model_layout, new_monitor, write_baseline
from commands.drift.report import say_what_is_missing
from commands.drift.words import moment
from commands.inputs import BundleOption, check_files
from drift import learn as learned
from drift import stratum_of
from models.tables import TableError
from server.observe.drift_log import Tally, read_blocks, read_labels

DAY: Final = 86_400


def learn(
    files: Annotated[list[Path], typer.Argument(help="Files of the prediction log, gzipped or not; - is standard input.")],
    out: OutOption,
    bundle: BundleOption = None,
    begin: Annotated[datetime | None, typer.Option("--from", help="Leave out what is earlier, in UTC.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="Leave out what is as late or later, in UTC.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="True labels of texts drawn at random: a file of request_id and label.")
    ] = None,
    strata: Annotated[
        int | None,
        typer.Option(min=1, max=24, help="Parts of the day with counts of their own.", show_default="24; 1 for less than two days"),
    ] = None,
    note: Annotated[str, typer.Option(help="Kept in the baseline, and shown with each report.")] = "",
) -> None:
    """Make a baseline: what is normal.

    Of a log, the texts that the server counted are normal, hour by hour; leave out what was not with --from and --to. The larger
    the baseline, the smaller the changes that can be noticed: 20,000 texts are a good beginning. The channels are those of the
    profile in the bundle.

    Example:

        supportbot drift learn predictions.jsonl --from 2026-11-01 --to 2026-11-08 --out baseline.json
    """
    check_files([*files, *filter(None, [labels])], out)
    layout, tally = model_layout(bundle), Tally()
    seconds = new_monitor(layout, None).promise.block_seconds
    first, last = (None if time is None else time.replace(tzinfo=UTC).timestamp() for time in (begin, end))
    try:
        true = read_labels(labels, layout, tally) if labels else None
        blocks = [
            (number * seconds, counts)
            for number, counts in read_blocks(files, layout, seconds, tally, true)
            if (first is None or number * seconds >= first) and (last is None or number * seconds < last)
        ]
    except TableError as error:
        fail(str(error))
    say_what_is_missing(tally)
    if not blocks:
        fail("no text of the log lies within that time")
    span = max(time for time, _ in blocks) - min(time for time, _ in blocks)
    parts = strata or (24 if span >= 2 * DAY else 1)
    baseline = learned(layout, ((stratum_of(time, parts), counts) for time, counts in blocks), parts, note)
    write_baseline(baseline, out)
    say(f"{out}: {baseline.texts:,} texts from {moment(blocks[0][0])} to {moment(blocks[-1][0] + seconds)} UTC, {parts} strata")
