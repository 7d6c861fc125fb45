"""Verdicts in words, for the console and for the page."""

from __future__ import annotations

from datetime import UTC, datetime

from commands.drift.history import Change
from drift import Attribution, State, Timeline, Verdict


def moment(time: float) -> str:
    """To the minute, in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")


def share(value: float) -> str:
    """As per cent."""
    return f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}".replace(".0%", "%") if value >= 0.01 else f"{value:.2%}"


def duration(hours: float) -> str:
    """To two digits, in minutes, hours or days."""
    for unit, length in (("days", 24.0), ("h", 1.0)):
        if hours >= 2 * length:
            return f"{hours / length:.2g} {unit}" if hours / length < 10 else f"{hours / length:,.0f} {unit}"
    return f"{max(hours * 60, 1):.0f} min"


def cells(timeline: Timeline, verdict: Verdict) -> tuple[str, str, str, str, str]:
    """A verdict's state, evidence, beginning, place and amount; empty where there is nothing to say."""
    since = "" if verdict.since is None else moment(timeline.time(verdict.since))
    shift = verdict.shift
    moved = "" if shift is None else f"{share(shift.share)}, between {share(shift.low)} and {share(shift.high)}"
    evidence = "" if verdict.state is State.LEARNING else f"{verdict.evidence:.0%}"
    return str(verdict.state), evidence, since, verdict.where or "", moved


def change_cells(change: Change) -> tuple[str, str, str, str]:
    """A change's time, level, states and place."""
    verdict = change.verdict
    return moment(change.time), verdict.level, f"{change.before} to {verdict.state}", verdict.where or ""


def attributed(found: Attribution) -> str:
    """In which texts the change is, in a sentence or two."""
    labels = sorted(found.labels.items(), key=lambda item: -item[1])
    said = ", ".join(f"{share(part)} {label}" for label, part in labels if part >= 0.005)
    mix = f"Another mix of labels would explain {share(found.mix)} of the change."
    return f"Of the unusual texts since the change: {said}. {mix}" if said else mix
