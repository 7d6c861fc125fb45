"""`python -m benchmarks.drift_picture ROWS... --out PICTURE`: delay over false alarms, of this detector and of others.

ROWS are what `python -m benchmarks.drift DATA frontier` and `drift_peers.py` printed. A detector's settings are points of one line;
the better, the further down and to the left. Where no false alarm was seen in two million texts, the point lies at the left edge.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

CHANGES: Final = ("live chat 10%", "Stack Exchange 10%")
NONE_SEEN: Final = 0.25
OURS: Final = "promised"
STYLES: Final = (
    (OURS, "this detector, by what it promises", "#1f6fb4", "o-"),
    ("river ADWIN on combined", "river ADWIN, given the same score", "#bf5a0a", "s-"),
    ("river ADWIN on confidence", "river ADWIN, confidence", "#bf5a0a", "s:"),
    ("river Page-Hinkley on combined", "river Page-Hinkley, given the same score", "#0c7c7c", "^-"),
    ("evidently Wasserstein distance (normed) of combined", "evidently Wasserstein, given the same score", "#7a3fa8", "D-"),
    ("evidently Wasserstein distance (normed) of confidence", "evidently Wasserstein, confidence", "#7a3fa8", "D:"),
    ("NannyML wasserstein of combined", "NannyML Wasserstein, given the same score", "#2f855a", "P-"),
    ("NannyML wasserstein of confidence", "NannyML Wasserstein, confidence", "#2f855a", "P:"),
    ("alibi-detect CVM", "alibi-detect CVM online, given the same score", "#1b1f24", "*-"),
    ("PSI of confidence, 500", "PSI of confidence", "#c62828", "v:"),
    ("alarm every", "an alarm every n texts", "#8a929b", "x:"),
)


def points(lines: Iterable[str], change: str) -> dict[str, list[tuple[float, float]]]:
    """Of each detector, false alarms in a million texts and median delay in texts, where it finds the change."""
    found: dict[str, list[tuple[float, float]]] = {}
    column = 0
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if cells[0] == "peer":
            column = cells.index(change)
        elif line.startswith("| ") and column < len(cells) and re.fullmatch(r"[\d,]+", cells[column]):
            name = next((start for start, *_ in STYLES if cells[0].startswith(start)), None)
            if name is not None:
                rate, delay = (float(cell.replace(",", "")) for cell in (cells[1], cells[column]))
                found.setdefault(name, []).append((max(rate, NONE_SEEN), delay))
    return found


def draw(axes: Axes, lines: list[str], change: str) -> None:
    """One change."""
    found = points(lines, change)
    for name, label, colour, style in STYLES:
        if name in found:
            rates, delays = zip(*sorted(found[name]), strict=True)
            axes.plot(rates, delays, style, color=colour, label=label, linewidth=2.4 if name == OURS else 1.2, markersize=5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(change.replace("%", " % of the texts"), fontsize=10)
    axes.set_xlabel("false alarms in a million texts; left edge: none in two million")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def main(rows: list[Path], out: Path) -> None:
    """Draw both changes side by side."""
    lines = [line for path in rows for line in path.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, change in zip((left, right), CHANGES, strict=True):
        draw(axes, lines, change)
    left.set_ylabel("texts to the alarm, median")
    named = {label: handle for axes in (left, right) for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    labels = [label for _, label, *_ in STYLES if label in named]
    figure.legend([named[label] for label in labels], labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    main(arguments.rows, arguments.out)
