"""The report as one page: no script, nothing from elsewhere, fit for a phone and for the dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Final

import numpy as np

import loadtest
from commands.drift.charts import Series, figure
from commands.drift.history import HOUR, History
from commands.drift.pieces import Pieces
from commands.drift.words import attributed, cells, change_cells, duration, moment, share
from drift import Baseline, Channel, Counts, LevelName, State, Verdict
from drift.outcome import ESTIMATE_EDGES, mean_of_bins
from server.observe.drift_log import Tally

TEMPLATE: Final = Path(__file__).with_name("page.html")
STYLE: Final = Path(loadtest.__file__).parent / "templates" / "report.css"
COLOURS: Final[dict[LevelName, str]] = {"input": "blue", "output": "orange", "outcome": "teal"}
ASKS: Final[dict[LevelName, str]] = {
    "input": "Are other texts sent?", "output": "Are other answers given?", "outcome": "Are the answers wrong more often?",
}  # fmt: skip
KINDS: Final = {State.OK: "passed", State.DRIFT: "failed"}
RECENT_HOURS: Final = 24
LEAST_TEXTS: Final = 20  # of an hour or a channel, for its share to be shown


def page(history: History, tally: Tally, pieces: Pieces | None) -> str:
    """The page of a report."""
    worst = max((verdict.state for verdict in history.verdicts.values()), key=list(State).index)
    values = {
        "style": STYLE.read_text(encoding="utf-8"),
        "headline": escape(_headline(history)),
        "lead": escape(f"{moment(history.times[0])} to {moment(history.times[-1] + history.timeline.seconds)} UTC"),
        "kind": KINDS.get(worst, ""),
        "word": {State.LEARNING: "Learning", State.OK: "Nothing has changed", State.WATCH: "Watch", State.DRIFT: "Drift"}[worst],
        "verdict": escape(_explanation(history, worst)),
        "tiles": "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(figure_)} <small>{escape(unit)}</small></dd></div>"
            for name, figure_, unit in _tiles(history, tally)
        ),
        "levels": "".join(_level(history, verdict) for verdict in history.verdicts.values()),
        "attributed": f"<p>{escape(attributed(found))}</p>" if (found := history.attribution()) else "",
        "charts": "".join(_charts(history)),
        "changes": _table("", ("UTC", "level", "change", "where"), [change_cells(change) for change in history.changes])
        or "<p>No level changed its state.</p>",
        "words": _words(pieces),
        "channels": _channels(history),
        "detectable": _detectable(history),
        "facts": "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(history, tally)),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def _headline(history: History) -> str:
    drifted = history.drifted
    if not drifted:
        return "No drift"
    return "Drift at the " + " and the ".join(verdict.level for verdict in drifted)


def _explanation(history: History, worst: State) -> str:
    if worst is State.LEARNING:
        return "There is no baseline yet, or it has too few texts: nothing is tested."
    days = history.timeline.monitor.promise.false_alarm_days
    return (
        f"By chance, a level would say so once in {days:g} days."
        if worst is State.DRIFT
        else f"False alarms: one in {days:g} days."
    )


def _level(history: History, verdict: Verdict) -> str:
    state, evidence, since, where, moved = cells(history.timeline, verdict)
    said = f"{ASKS[verdict.level]} "
    if where:
        said += f"Most of all {where}, since {since} UTC; {moved} of the texts of the last hour have moved there. "
    if evidence:
        said += f"Evidence: {evidence} of the way to an alarm."
    kind = KINDS.get(verdict.state, "")
    name = f"{verdict.level.capitalize()}: {state}."
    return f'<div class="verdict {kind}"><p><strong>{escape(name)}</strong> {escape(said)}</p></div>'


def _tiles(history: History, tally: Tally) -> Iterable[tuple[str, str, str]]:
    monitor = history.timeline.monitor
    yield "texts counted", f"{tally.counted:,}", ""
    hours = len(history.times) * history.timeline.seconds / HOUR
    yield "time", f"{hours / 24:.1f}" if hours >= 48 else f"{hours:.1f}", "days" if hours >= 48 else "hours"
    yield "baseline", f"{monitor.baseline.texts:,}" if monitor.baseline else "none", "texts" if monitor.baseline else ""
    if tally.labelled:
        yield "with true label", f"{tally.labelled:,}", "texts"
    for when, accuracy in _accuracies(history):
        yield f"estimated accuracy, {when}", f"{accuracy:.3f}", ""


def _accuracies(history: History) -> Iterable[tuple[str, float]]:
    """Estimated from the texts alone, where the profile has an error estimate: of the baseline, and of the last day."""
    monitor = history.timeline.monitor
    if not any(channel.name == "error estimate" and channel.edges == ESTIMATE_EDGES for channel in monitor.layout.channels):
        return
    place = monitor.layout.place("error estimate")
    if monitor.baseline and monitor.baseline.counts[:, place].sum():
        yield "baseline", 1 - mean_of_bins(monitor.baseline.counts[:, place].sum(axis=0), ESTIMATE_EDGES)
    if (recent := _recent(history)[place]).sum():
        yield "last day", 1 - mean_of_bins(recent, ESTIMATE_EDGES)


def _recent(history: History) -> Counts:
    last = max(history.hours)
    counts: Counts = sum(
        (counts for hour, counts in history.hours.items() if hour > last - RECENT_HOURS * HOUR),
        np.zeros(history.timeline.monitor.layout.width, dtype=np.int64),
    )
    return counts


def _charts(history: History) -> Iterable[str]:
    levels = [level for level, values in history.evidence.items() if any(values)]
    series = [Series(level, COLOURS[level], list(zip(history.times, history.evidence[level], strict=True))) for level in levels]
    ends = (history.times[0], history.times[-1])
    if series:
        alarm = Series("alarm", "red", [(time, 1.0) for time in ends], dashed=True)
        note = "On a logarithmic scale: at 100 %, the evidence is such as comes by chance once in the promised time."
        yield figure("evidence", "Evidence against the baseline", note, [*series, alarm], 1.0, "{:.0%}".format)
    for verdict in history.verdicts.values():
        yield from _share_chart(history, verdict)
    hours = sorted(history.hours)
    counts = [(hour, float(history.timeline.monitor.layout.texts(history.hours[hour]))) for hour in hours]
    highest = max(value for _, value in counts) or 1
    yield figure("texts", "Texts an hour", "Those that were counted.", [Series("texts", "grey", counts)], highest, "{:,.0f}".format)


def _share_chart(history: History, verdict: Verdict) -> Iterable[str]:
    """The share of the tail that a verdict names, hour by hour."""
    monitor = history.timeline.monitor
    channel = next((each for each in monitor.layout.channels if each.name == verdict.channel), None)
    if channel is None or monitor.baseline is None:
        return
    tail = next(tail for tail in channel.tails() if channel.describe(tail) == verdict.where)
    place = monitor.layout.place(channel.name)
    points: list[tuple[float, float | None]] = []
    for hour in sorted(history.hours):
        counts = history.hours[hour][place]
        points.append((hour, float(counts @ tail / counts.sum()) if counts.sum() >= LEAST_TEXTS else None))
    usual = _share(monitor.baseline.counts[:, place].sum(axis=0), tail)
    if len(points) < 2 or usual is None:
        return
    highest = max([usual, *(value for _, value in points if value is not None)]) * 1.1 or 1.0
    yield figure(
        f"share-{verdict.level}",
        f"Texts with {verdict.where}",
        f"Of the texts of each hour, at the level {verdict.level}; hours with fewer than {LEAST_TEXTS} are left out.",
        [
            Series("texts", COLOURS[verdict.level], points),
            Series("baseline", "muted", [(points[0][0], usual), (points[-1][0], usual)], dashed=True),
        ],
        highest,
        "{:.0%}".format if highest > 0.08 else "{:.1%}".format,
    )


def _share(counts: Counts, tail: np.ndarray) -> float | None:
    return float(counts @ tail / counts.sum()) if counts.sum() else None


def _channels(history: History) -> str:
    """Of each tested channel, the tail that has moved most since the baseline, against its bound."""
    baseline, recent = history.timeline.monitor.baseline, _recent(history)
    if baseline is None:
        return "<p>There is no baseline to compare with.</p>"
    rows = [
        row
        for channel in baseline.layout.channels
        if channel.tested and (row := _channel_row(baseline, channel, recent[baseline.layout.place(channel.name)]))
    ]
    return _table(
        "The tail of each channel that has moved furthest, in the last day of the log",
        ("channel", "texts", "baseline", "now"),
        rows,
    )


def _channel_row(baseline: Baseline, channel: Channel, counts: Counts) -> tuple[str, ...] | None:
    usual = baseline.counts[:, baseline.layout.place(channel.name)].sum(axis=0)
    if min(counts.sum(), usual.sum()) < LEAST_TEXTS:
        return None
    tails = channel.tails()
    before, now = tails @ usual / usual.sum(), tails @ counts / counts.sum()
    # In standard errors of the share that is expected now.
    moved = np.abs(now - before) / np.sqrt(np.maximum(before * (1 - before), 1 / usual.sum()) / counts.sum())
    most = int(moved.argmax())
    return channel.describe(tails[most]), f"{counts.sum():,}", share(float(before[most])), share(float(now[most]))


def _words(pieces: Pieces | None) -> str:
    if pieces is None:
        return ""
    tables = [
        _table(
            f"In {name} texts than before",
            ("piece", "before", "since"),
            [(word.text, share(word.before), share(word.now)) for word in words],
        )
        for name, words in (("more", pieces.more), ("fewer", pieces.less))
    ]
    note = (
        f"Pieces of words in the {pieces.since:,} texts since the change and the {pieces.before:,} before it. They stand in 20"
        " texts at least and hold no digit."
    )
    return f'<section>\n<h2>Words</h2>\n<p class="note">{note}</p>\n{"".join(tables) or "<p>None stands out.</p>"}\n</section>'


def _detectable(history: History) -> str:
    found = history.detectable()
    if not found:
        return ""
    hours = len(history.times) * history.timeline.seconds / HOUR / max(sum(history.texts), 1)

    def told(texts: float | None) -> str:
        return "never" if texts is None else f"{texts:,.0f} ({duration(texts * hours)})"

    shares = next(iter(found.values()))
    rows = [(share(moved), *(told(level[moved]) for level in found.values())) for moved in shares]
    note = (
        "Texts until the alarm, and the time at the traffic of this log, if so many of all texts moved into a tail that one in"
        " twenty normal texts has. What is never noticed needs a larger baseline."
    )
    return f"<section>\n<h2>What can be noticed</h2>\n{_table(note, ('moved', *found), rows)}\n</section>"


def _facts(history: History, tally: Tally) -> Iterable[tuple[str, str]]:
    monitor = history.timeline.monitor
    if monitor.baseline is not None:
        yield "baseline", "; ".join(monitor.baseline.notes) or "without a note"
        yield "strata", str(monitor.baseline.strata)
    promise = monitor.promise
    yield "promise", f"one false alarm in {promise.false_alarm_days:g} days at each level, on average"
    yield "blocks", f"{len(history.times):,} of {promise.block_seconds:g} s"
    yield "lines not counted", f"{tally.uncounted:,}: from the cache, repeated within the hour, or bulk"
    if tally.other_layout:
        yield "of another model", f"{tally.other_layout:,} lines, left out"
    if tally.bad:
        yield "not usable", f"{tally.bad:,} lines"
    yield "channels", monitor.layout.fingerprint


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; nothing if it has no row."""
    if not rows:
        return ""
    heading = f'<p class="note">{escape(caption)}</p>' if caption else ""
    cells_ = "".join(f'<th scope="col" class="words">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f'<td class="words">{escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'{heading}<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption or head[0])}">'
        f"<table><thead><tr>{cells_}</tr></thead><tbody>{body}</tbody></table></div>"
    )
