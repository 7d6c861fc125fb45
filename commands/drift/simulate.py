"""`supportbot drift simulate`"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from commands.console import fail, progress_bar
from commands.drift.monitoring import BaselineOption, layout_and_baseline, new_monitor
from commands.drift.report import say_what_is_missing
from commands.drift.simulation import DIVISIONS, Delays, TooShortError, Traffic
from commands.drift.simulation import simulate as simulated
from commands.drift.texts import is_log, text_bins
from commands.drift.words import share as percent
from commands.inputs import BundleOption, check_files
from drift import Layout, LevelName
from drift.channels import Bins
from models.tables import TableError, TableFormat
from server.observe.drift_log import Tally, read_log

SHARES: Final = (0.5, 0.25, 0.1, 0.05)


def simulate(
    logs: Annotated[list[Path], typer.Argument(help="Files of the prediction log, gzipped or not; - is standard input.")],
    mix: Annotated[Path | None, typer.Option(help="Texts to mix in: a prediction log, or a file of texts.")] = None,
    baseline: BaselineOption = None,
    bundle: BundleOption = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="How long a stream is; at most what the log has.")] = 7,
    streams: Annotated[int, typer.Option(min=1, max=10_000, help="How many there are, for each row.")] = 40,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
) -> None:
    """Show what false alarms and delays to expect on your own traffic.

    A stream is the log's hours in another order, each at its time of the day. Without a baseline, half of the hours make one and
    the streams are of the others. With one, it should be older than the log. The first row has nothing but the log, so each alarm
    in it is false, or the log itself has changed; the others have texts of --mix in place of a share of the log's.

    Example:

        supportbot drift simulate predictions.jsonl --mix other-product.jsonl --days 7
    """
    check_files([*logs, *filter(None, [mix, baseline])])
    layout, compared = layout_and_baseline(baseline, bundle)
    promise, tally = new_monitor(layout, compared).promise, Tally()
    try:
        times, bins = _read(logs, layout, tally)
        say_what_is_missing(tally)
        traffic = Traffic(layout, times, bins, promise.block_seconds)
        rows: list[tuple[float, Bins | None]] = [(0.0, None)]
        if mix is not None:
            other = _mixed_in(mix, layout, bundle)
            rows += [(share, other) for share in SHARES]
        found: dict[float, Mapping[LevelName, Delays]] = {}
        with progress_bar() as progress:
            task = progress.add_task("simulating, in hours", total=len(rows) * DIVISIONS * days * 24)
            for row, (share, other_bins) in enumerate(rows):
                found[share] = simulated(
                    traffic, compared, promise, days=days, streams=streams, mix=other_bins, share=share, seed=seed,
                    on_hour=lambda: progress.advance(task),
                )  # fmt: skip
                progress.update(task, completed=(row + 1) * DIVISIONS * days * 24)
    except (TableError, TooShortError) as error:
        fail(str(error))
    _show(found, traffic, days, promise.false_alarm_days)


def _mixed_in(path: Path, layout: Layout, bundle: Path | None) -> Bins:
    if is_log(path):
        tally = Tally()
        _, bins = _read([path], layout, tally)
        say_what_is_missing(tally)
        return bins
    parts = list(text_bins(path, TableFormat(), bundle, layout))
    if not parts:
        fail(f"{path}: no texts")
    return np.concatenate(parts)


def _read(paths: list[Path], layout: Layout, tally: Tally) -> tuple[np.ndarray, Bins]:
    parts = [logged for path in paths for logged in read_log(path, layout, tally)]
    if not parts:
        return np.zeros(0), np.zeros((0, len(layout.channels)), dtype=np.int64)
    return np.concatenate([part.times for part in parts]), np.concatenate([part.bins for part in parts])


def _show(found: Mapping[float, Mapping[LevelName, Delays]], traffic: Traffic, days: int, false_alarm_days: float) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{traffic.texts:,} texts in {len(traffic.hours):,} hours, replayed as streams of at most {days} days")
    levels = list(found[0.0])
    if not levels:
        console.print("the baseline has too few texts: nothing is tested")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("mixed in")
    for level in levels:
        table.add_column(level)
    for share, delays in found.items():
        table.add_row(percent(share) if share else "nothing", *(_cell(delays[level], alone=not share) for level in levels))
    console.print(table)
    expected = days / false_alarm_days
    console.print(
        f"nothing mixed in: streams with an alarm; promised are {expected:.2g} false alarms in {days} days at most, on average, at"
        " each level.\nOtherwise: minutes and texts to the alarm, median (9 of 10 streams)."
    )


def _cell(delays: Delays, *, alone: bool) -> str:
    streams = len(delays.minutes)
    if alone:
        return f"{delays.alarms} of {streams}"
    if delays.alarms < streams / 2:
        return f"found in {delays.alarms} of {streams}"
    minutes, texts = (
        [f"{float(np.quantile(each, level, method='higher')):,.0f}" for level in (0.5, 0.9)]
        for each in (delays.minutes, delays.texts)
    )
    return f"{minutes[0]} ({minutes[1]}) min, {texts[0]} ({texts[1]}) texts"
