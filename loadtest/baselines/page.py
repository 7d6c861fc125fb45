"""`python -m loadtest.baselines.page`: the tables of docs/performance.md and its chart, from the result.

Tables go between two comments, so that no figure is copied by hand; a file without them is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from loadtest.baselines.comparison import OURS, OURS_WINDOW, SHARES, SYSTEMS, TITLES, Comparison, Point, Spread, read_comparison

RESULT: Final = Path("docs/performance.json")
CHART: Final = Path("docs/performance.png")
PAGE: Final = Path("docs/performance.md")


def write(comparison: Comparison) -> None:
    """Write the chart, and the tables into the page."""
    from loadtest.baselines.chart import draw

    draw(comparison, CHART)
    for name, text in tables(comparison).items():
        put(PAGE, name, text)


def tables(comparison: Comparison) -> dict[str, str]:
    """What the page shows, by the name of its place."""
    return {
        "summary": summary(comparison),
        "ratios": ratios(comparison),
        "details": details(comparison),
        "alone": alone(comparison),
        "agreement": agreement(comparison),
    }


def put(path: Path, name: str, text: str) -> None:
    """Replace what is between the comments `<!-- NAME: begin -->` and `<!-- NAME: end -->`, if the file has them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = path.read_text(encoding="utf-8")
    replaced = re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n\n{text}\n\n{end}", page, flags=re.DOTALL)
    path.write_text(replaced, encoding="utf-8")


def summary(comparison: Comparison) -> str:
    """A row for each system: what it can do, and how long its answers take."""
    head = ["", f"highest rate with p99 under {comparison.bound_ms:.0f} ms"]
    head += [f"{load}: p50 / p99 at {comparison.rate(load):.0f}/s" for load in list(SHARES)[:-1]]
    head += [f"overload: answered at {comparison.rate('overload'):.0f}/s"]
    rows = []
    for system in SYSTEMS:
        row = [TITLES[system], f"{_whole(comparison.highest_rate(system))} texts/s"]
        row += [_latencies(comparison, system, load) for load in list(SHARES)[:-1]]
        row += [f"{_middle(comparison, system, 'overload', _achieved):.0f}/s"]
        rows.append(row)
    rows[0] = [f"**{cell}**" for cell in rows[0]]
    return f"{table(head, rows)}\n\n{_caption(comparison)}"


def ratios(comparison: Comparison) -> str:
    """How often the others' highest rate goes into ours."""
    ours = comparison.highest_rate(OURS).middle
    others = {system: comparison.highest_rate(system).middle for system in SYSTEMS if system not in {OURS, OURS_WINDOW}}
    parts = [
        f"{ours / rate:.1f} times that of {TITLES[system]}" if rate else f"{TITLES[system]} has none"
        for system, rate in others.items()
    ]
    return f"SupportBot's highest rate with p99 under {comparison.bound_ms:.0f} ms is {'; '.join(parts)}."


def details(comparison: Comparison) -> str:
    """A row for each system and rate: medians, with least and most."""
    head = ["", "offered", "answered/s", "late or never", "p50 ms", "p99 ms", "no answer", "server CPU", "generator CPU"]
    rows = []
    for load in SHARES:
        for system in SYSTEMS:
            row = [TITLES[system], f"{load}, {comparison.rate(load):.0f}/s"]
            row += [_whole(comparison.spread(system, load, _achieved))]
            row += [_percent(comparison.spread(system, load, lambda point: 1 - point.in_time / point.sent))]
            row += [_ms(comparison.spread(system, load, value)) for value in (_p50, _p99)]
            row += [f"{_middle(comparison, system, load, lambda point: point.failed_share):.0%}"]
            row += [f"{_middle(comparison, system, load, value):.2f}" for value in (_server_cpu, _client_cpu)]
            rows.append(row)
    return table(head, rows)


def alone(comparison: Comparison) -> str:
    """A row for each system: a lone text, and short texts at saturation."""
    head = ["", "a lone short text, p50 ms", "a lone ticket, p50 ms", "short texts at saturation, texts/s"]
    rows = [
        [
            TITLES[system],
            _ms(comparison.alone_spread(system, lambda found: found.short_ms)),
            _ms(comparison.alone_spread(system, lambda found: found.ticket_ms)),
            _whole(comparison.alone_spread(system, lambda found: found.short_rate)),
        ]
        for system in SYSTEMS
    ]
    return table(head, rows)


def agreement(comparison: Comparison) -> str:
    """A row for each system: its labels against ours and against the right ones."""
    head = ["", "written tickets", "labels as ours", "right labels"]
    found = sorted(comparison.agreement, key=lambda row: SYSTEMS.index(row.system))
    return table(
        head,
        [[TITLES[row.system], str(row.texts), f"{row.same / row.texts:.1%}", f"{row.right / row.texts:.1%}"] for row in found],
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _caption(comparison: Comparison) -> str:
    machine = comparison.machine
    packages = ", ".join(f"{name} {version}" for name, version in comparison.packages.items())
    noise = Spread.of([point.other_cpu for point in comparison.points])
    rounds = f"medians of {comparison.repeats} interleaved rounds (least - most)" if comparison.repeats > 1 else "one round"
    return (
        f"{machine.cores} cores of {machine.processor}, generator included, {comparison.started[:10]}; Python {machine.python},"
        f" {packages}. Texts/s and ms; {rounds}, {comparison.seconds:g} s a rate. SupportBot's capacity was"
        f" {comparison.capacity:.0f} texts/s. Other work on the machine took {noise.middle:.2f} cores (at most {noise.most:.2f})."
    )


def _latencies(comparison: Comparison, system: str, load: str) -> str:
    p50, p99 = (comparison.spread(system, load, value) for value in (_p50, _p99))
    if p50 is None or p99 is None:
        return "no answer"
    return f"{_number(p50.middle)} / {_number(p99.middle)}"


def _middle(comparison: Comparison, system: str, load: str, value: Callable[[Point], float]) -> float:
    spread = comparison.spread(system, load, value)
    return spread.middle if spread else 0.0


def _achieved(point: Point) -> float:
    return point.achieved


def _p50(point: Point) -> float | None:
    return point.p50


def _p99(point: Point) -> float | None:
    return point.p99


def _server_cpu(point: Point) -> float:
    return point.server_cpu


def _client_cpu(point: Point) -> float:
    return point.client_cpu


def _number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _spread(spread: Spread | None, shown: Callable[[float], str]) -> str:
    """The median, and in brackets least and most where they look different."""
    if spread is None:
        return "-"
    middle, least, most = map(shown, (spread.middle, spread.least, spread.most))
    return middle if least == most else f"{middle} ({least} - {most})"


def _whole(spread: Spread | None) -> str:
    return _spread(spread, lambda value: f"{value:.0f}")


def _ms(spread: Spread | None) -> str:
    return _spread(spread, _number)


def _percent(spread: Spread | None) -> str:
    return _spread(spread, lambda value: f"{value:.1%}")


if __name__ == "__main__":
    write(read_comparison(RESULT))
