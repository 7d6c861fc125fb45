"""`supportbot drift report`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.console import fail, say
from commands.drift.history import History, follow
from commands.drift.monitoring import BaselineOption, layout_and_baseline, new_monitor
from commands.drift.pieces import Pieces, pieces_since
from commands.drift.words import attributed, cells, change_cells, moment, share
from commands.inputs import BundleOption, bundle_folder, check_files
from models.bundle import Bundle, BundleError
from models.tables import TableError
from models.tokenizer import TokenizerError
from server.observe.drift_log import Tally, read_blocks, read_labels

if TYPE_CHECKING:
    from rich.table import Table

COLOURS = {"learning": "dim", "ok": "green", "watch": "yellow", "drift": "bold red"}
SHOWN_CHANGES = 20


def report(
    logs: Annotated[list[Path], typer.Argument(help="Files of the prediction log, gzipped or not; - is standard input.")],
    baseline: BaselineOption = None,
    bundle: BundleOption = None,
    labels: Annotated[
        Path | None, typer.Option(help="True labels of texts drawn at random: a file of request_id and label.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="A page to write, with everything in it.")] = None,
) -> None:
    """Say what drift detection says of prediction logs: the same, in the same minute, as the server that wrote them.

    Logs may be the files of one server, in any order, or those of replicas, which are counted as one. Without a baseline, one is
    learned from the first texts, as a server does, by the channels of the profile in the bundle. The exit status is 0 if all is
    well at the end of the log, 1 if a level is in drift, 2 if there is no telling.

    Examples:

        supportbot drift report predictions.jsonl.1 predictions.jsonl --html drift.html

        supportbot drift report predictions.jsonl --baseline baseline.json --labels labelled.csv
    """
    check_files([*logs, *filter(None, [baseline, labels])], *filter(None, [html]))
    if html is not None and not html.absolute().parent.is_dir():
        fail(f"{html.parent}: no such folder")
    layout, compared = layout_and_baseline(baseline, bundle)
    monitor, tally = new_monitor(layout, compared), Tally()
    try:
        true = read_labels(labels, layout, tally) if labels else None
        history = follow(monitor, read_blocks(logs, layout, monitor.promise.block_seconds, tally, true))
    except TableError as error:
        fail(str(error))
    say_what_is_missing(tally)
    pieces = _pieces(logs, bundle, history, tally)
    _show(history, tally, pieces)
    if html is not None:
        from commands.drift.page import page

        try:
            html.write_text(page(history, tally, pieces), encoding="utf-8")
        except OSError as error:
            fail(f"{html}: {error.strerror or error}")
        say(f"the page is in {html}")
    if history.drifted:
        raise typer.Exit(1)


def _pieces(logs: list[Path], bundle: Path | None, history: History, tally: Tally) -> Pieces | None:
    """The words that changed with the earliest change that lasts, if the log has texts."""
    if history.began is None or not tally.with_text:
        return None
    try:
        return pieces_since(logs, Bundle.open(bundle_folder(bundle)), history.began)
    except (BundleError, TokenizerError, TableError) as error:
        say(f"words are not shown: {error}")
        return None


def say_what_is_missing(tally: Tally) -> None:
    """Tell what was not counted, and end the command if nothing was."""
    for fault in tally.faults:
        say(fault)
    if tally.bad > len(tally.faults):
        say(f"lines and labels that cannot be used: {tally.bad:,}; the first are named")
    if tally.other_layout:
        say(f"texts with the bins of another model or baseline, left out: {tally.other_layout:,}")
    if not tally.counted:
        fail(
            f"of {tally.lines:,} lines, none has bins of these channels; was the log written with drift detection,"
            " by the model of this baseline?"
        )


def _show(history: History, tally: Tally, pieces: Pieces | None) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    monitor = history.timeline.monitor
    seconds = history.timeline.seconds
    console.print(
        f"{tally.counted:,} texts from {moment(history.times[0])} to {moment(history.times[-1] + seconds)} UTC"
        f" in {len(history.times):,} blocks of {seconds:g} s; {tally.uncounted:,} lines were not counted"
        + (f"; {tally.labelled:,} texts with a true label" if tally.labelled else "")
    )
    if monitor.baseline is None:
        texts, blocks = monitor.present.texts, monitor.present.blocks
        console.print(f"there is no baseline yet: {texts:,} texts in {blocks:,} blocks were counted towards one")
    else:
        notes = "; ".join(monitor.baseline.notes) or "without a note"
        console.print(f"compared with {monitor.baseline.texts:,} texts ({notes})", markup=False)
    console.print(_levels(history))
    if history.changes:
        console.print(_changes(history))
    if (found := history.attribution()) is not None:
        console.print(attributed(found))
    if pieces is not None:
        for name, words in (("more", pieces.more), ("fewer", pieces.less)):
            said = ", ".join(f"{word.text} ({share(word.now)}, before {share(word.before)})" for word in words)
            console.print(f"in {name} texts since the change: {said or 'nothing'}", markup=False)


def _levels(history: History) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("level", "state", "evidence", "since, UTC", "where", "texts moved"):
        table.add_column(heading, justify="right" if heading == "evidence" else "left")
    for verdict in history.verdicts.values():
        table.add_row(verdict.level, *cells(history.timeline, verdict), style=COLOURS[verdict.state])
    return table


def _changes(history: History) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    left_out = len(history.changes) - SHOWN_CHANGES
    title = "changes" if left_out <= 0 else f"changes, the last {SHOWN_CHANGES}; {left_out:,} before"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("UTC", "level", "change", "where"):
        table.add_column(heading)
    for change in history.changes[-SHOWN_CHANGES:]:
        table.add_row(*change_cells(change), style=COLOURS[change.verdict.state])
    return table
