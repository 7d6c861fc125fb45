"""`supportbot lengths`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from commands.console import fail, progress_bar, say
from commands.inputs import FILE_OF_TEXTS, BundleOption, Delimiter, Encoding, InputFormat, TextColumn, check_files, table_format
from models.bundle import Bundle, BundleError
from models.lengths import LONGEST, MOST_TRUNCATED, percent
from models.tables import TableError, source_name

if TYPE_CHECKING:
    from rich.console import Console

    from models.making.lengths import BatchLimits, Limit, Survey

BAR = 32


def lengths(
    file: Annotated[Path, typer.Argument(help=f"Texts: {FILE_OF_TEXTS}. Or the server's prediction log.")],
    bundle: BundleOption = None,
    text_column: TextColumn = None,
    input_format: InputFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    seconds: Annotated[int, typer.Option(min=0, max=3600, help="How long to measure costs; 0 measures none.")] = 20,
    max_truncated: Annotated[
        float, typer.Option(min=0.0, max=100.0, help="Per cent of the texts that may be cut, for the recommendation.")
    ] = MOST_TRUNCATED * 100,
    write_json: Annotated[Path | None, typer.Option("--json", help="A file to write all figures into, as JSON.")] = None,
) -> None:
    """Show how long texts are in tokens, how many a bundle's limit cuts, and what another limit would cost and save.

    Each limit is measured in one thread, on texts of the file cut there and run as the server would run them with the settings that
    it finds here; beside it, the same engine with all texts padded. Do nothing else on the machine meanwhile. Blank texts and rows
    that cannot be read are left out. A prediction log without texts has lengths up to the limit that was served, and nothing is
    known beyond it.

    Example:

        supportbot lengths tickets.csv --bundle my-bundle
    """
    from models.making.lengths import BatchLimits, compare, recommendation, survey
    from server.settings import SettingsError, load_settings

    table = table_format(input_format, delimiter, encoding, text_column)
    check_files([file], *filter(None, [write_json]))
    if write_json is not None and not write_json.parent.is_dir():
        fail(f"{write_json.parent}: no such folder")
    try:
        settings = load_settings()
    except SettingsError as error:
        fail(str(error))
    batch = BatchLimits(settings.batch_max_texts, settings.batch_max_tokens)
    try:
        opened = Bundle.open(bundle or settings.bundle)
        with progress_bar() as progress:
            reading = progress.add_task("reading", total=None)
            found = survey(file, opened, table, lambda: progress.advance(reading), say)
        _say_what_is_missing(found)
        if not found.lengths.texts:
            fail(f"{source_name(file)}: no texts")
        with progress_bar() as progress:
            task = progress.add_task("measuring, in seconds", total=seconds)
            limits = compare(found, opened, batch, seconds, lambda passed: progress.advance(task, passed))
    except TableError as error:
        fail(str(error))
    except BundleError as error:
        fail(str(error), 1)
    current = opened.manifest.max_length
    advice = recommendation(limits, found.lengths, current, max_truncated / 100)
    _show(found, limits, batch, current, f"{opened.manifest.name}@{opened.manifest.version}")
    typer.echo(advice)
    if write_json is not None:
        figures = _figures(found, limits, current) | {"recommendation": advice}
        try:
            write_json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            fail(f"{write_json}: {error.strerror or error}", 1)


def _say_what_is_missing(found: Survey) -> None:
    for row in found.bad:
        say(str(row))
    if found.bad_rows:
        say(f"rows that cannot be used: {found.bad_rows}" + (", the first are named" if found.bad_rows > len(found.bad) else ""))
    if found.left_out:
        say(f"{'answers from the cache' if found.is_log else 'blank texts'}, left out: {found.left_out}")
    if found.is_log:
        say("lengths from a prediction log: longer texts count as its limit")
    elif found.lengths.cut:
        say(f"texts over {LONGEST} tokens, which count as {LONGEST}: {found.lengths.cut}")


def _show(found: Survey, limits: list[Limit], batch: BatchLimits, current: int, model: str) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    summary = found.lengths.summary(current)
    console.print(
        f"{summary.texts} texts, tokens: mean {summary.mean:.1f}  p50 {summary.p50}  p90 {summary.p90}  p95 {summary.p95}"
        f"  p99 {summary.p99}  max {summary.longest}"
    )
    lost = found.lengths.lost(current)
    console.print(
        f"{model} reads {current}: {percent(summary.truncated)} of the texts are cut"
        + ("" if found.is_log else f", {percent(lost)} of the tokens lost")
    )
    console.print()
    _show_histogram(console, found)
    _show_limits(console, limits, batch, current)


def _show_histogram(console: Console, found: Survey) -> None:
    bins = found.lengths.histogram()
    most = max(found.texts for found in bins)
    for each in bins:
        span = f"{each.first} - {each.last}"
        bar = "█" * -(-each.texts * BAR // most)
        console.print(f"{span:>11}  {bar:<{BAR}}  {each.texts}  {percent(each.texts / found.lengths.texts)}")
    console.print()


def _show_limits(console: Console, limits: list[Limit], batch: BatchLimits, current: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False, caption_justify="left")
    for heading in ("limit", "texts cut", "tokens lost", "tokens", "ms", "median alone", "padded in batch", "padded to limit"):
        table.add_column(heading, justify="right")
    for limit in limits:
        measured = asdict(limit.cost).values() if limit.cost else ()
        shares = (percent(limit.truncated), percent(limit.lost), f"{limit.tokens:.1f}")
        cells = (str(limit.limit), *shares, *(f"{milliseconds:.2f}" for milliseconds in measured))
        table.add_row(*cells, style="bold" if limit.limit == current else None)
    table.caption = (
        f"tokens, ms of a core: a text on average, in batches of up to {batch.texts} texts or {batch.tokens} tokens as they come;"
        " median alone: ms of a text of median length by itself; padded: ms of a text if all were padded, to the longest in a batch"
        f" of {batch.texts} or to the limit"
    )
    console.print(table)


def _figures(found: Survey, limits: list[Limit], current: int) -> dict[str, object]:
    return {
        "limit": current,
        "left_out": found.left_out,
        "bad_rows": found.bad_rows,
        "cut": found.lengths.cut,
        "known_up_to": found.lengths.horizon,
        "lengths": asdict(found.lengths.summary(current)),
        "histogram": [asdict(each) for each in found.lengths.histogram()],
        "limits": [asdict(limit) for limit in limits],
    }
