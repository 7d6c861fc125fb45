"""The chart of a comparison: p99 over the offered rate, and the highest rate within the bound, a colour for each system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from loadtest.baselines.comparison import PROBE, SYSTEMS, TITLES, Comparison, Point

COLOURS: Final = dict(zip(SYSTEMS, ("#0b5fa5", "#6db3e8", "#2f855a", "#5f6b76", "#b7791f", "#c53030"), strict=True))
INK, GRID = "#24292f", "#d8dee4"
# Rates that are as near to each other as this ratio are drawn as one.
NEAR = 1.08


def draw(comparison: Comparison, path: Path) -> None:
    """Draw both charts into one PNG file. Raises `OSError`."""
    figure = Figure(figsize=(11, 4.6), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _latencies(left, comparison)
    _highest(right, comparison)
    figure.savefig(path, dpi=150)


def curve(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Rate and p99 in rising order, as medians of the points at almost equal rates; without those whose clients left early."""
    known = [(point.rate, point.p99) for point in points if point.p99 is not None and not _is_cut(point)]
    groups: list[list[tuple[float, float]]] = []
    for rate, p99 in sorted(known):
        if not groups or rate > groups[-1][0][0] * NEAR:
            groups.append([])
        groups[-1].append((rate, p99))
    return [(median(rate for rate, _ in group), median(p99 for _, p99 in group)) for group in groups]


def _is_cut(point: Point) -> bool:
    """Clients of a search leave early; where many did, p99 is not what a patient client would have seen."""
    return point.load == PROBE and point.failed_share > 0.01


def _latencies(axes: Axes, comparison: Comparison) -> None:
    for system in reversed(SYSTEMS):
        rates, latencies = zip(*curve([point for point in comparison.points if point.system == system]), strict=True)
        axes.plot(rates, latencies, color=COLOURS[system], linewidth=2.2, marker="o", markersize=4.5, label=TITLES[system])
    axes.axhline(comparison.bound_ms, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"{comparison.bound_ms:.0f} ms",
        (1, comparison.bound_ms),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        color=INK,
        fontsize=10,
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ms" if value < 1000 else f"{value / 1000:g} s"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(left=0)
    axes.set_xlabel("offered rate, texts/s", color=INK)
    axes.set_title("p99 latency over the offered rate", loc="left", fontsize=12, color=INK)
    _plain(axes, "both")


def _highest(axes: Axes, comparison: Comparison) -> None:
    for place, system in enumerate(reversed(SYSTEMS)):
        spread = comparison.highest_rate(system)
        axes.barh(place, spread.middle, height=0.46, color=COLOURS[system])
        axes.hlines(place, spread.least, spread.most, color=INK, linewidth=1.6)
        axes.annotate(
            f" {spread.middle:.0f}",
            (max(spread.middle, spread.most), place),
            va="center",
            color=INK,
            fontsize=12,
            fontweight="bold",
        )
        axes.text(0, place + 0.38, TITLES[system], va="center", color=COLOURS[system], fontsize=10.5)
    axes.set_yticks([])
    axes.set_ylim(-0.4, len(SYSTEMS) - 0.35)
    axes.set_xlim(0, 1.15 * max(comparison.highest_rate(system).most for system in SYSTEMS))
    axes.set_xlabel("texts/s", color=INK)
    axes.set_title(f"highest rate with p99 under {comparison.bound_ms:.0f} ms", loc="left", fontsize=12, color=INK)
    _plain(axes, "x")


def _plain(axes: Axes, grid: Literal["both", "x", "y"]) -> None:
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=INK, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
