"""Coverage and accuracy: how many texts a model answers at a least confidence, and how many of those answers are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.making.metrics import Floats, Indices

# The least confidences of the curve.
THRESHOLDS: Final = (0.0, *(round(0.40 + 0.02 * step, 2) for step in range(30)))
# Those of the table.
TABLE: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.94)


@dataclass(frozen=True, slots=True)
class Point:
    """At a least confidence: the share of the texts that are answered, and the accuracy on those; 1 where none is."""

    threshold: float
    coverage: float
    accuracy: float


def curve(targets: Indices, probabilities: Floats) -> list[Point]:
    """The points at `THRESHOLDS`, from true classes, shape [texts], and probabilities, shape [texts, labels]."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == targets
    points = []
    for threshold in THRESHOLDS:
        kept = confidence >= threshold
        points.append(Point(threshold, float(kept.mean()), float(correct[kept].mean()) if kept.any() else 1.0))
    return points


def coverage_at(targets: Indices, probabilities: Floats, accuracy: float) -> float:
    """The largest share of the texts, taken from the most confident on, on which the accuracy is at least this."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    correct = (probabilities.argmax(axis=1) == targets)[order]
    enough = np.flatnonzero(np.cumsum(correct) / np.arange(1, len(order) + 1) >= accuracy)
    return float((enough[-1] + 1) / len(order)) if len(enough) else 0.0


def curves_of(verification: Mapping[str, Any]) -> dict[str, list[Point]]:
    """The curves that a manifest's verification has."""
    return {name: [Point(**point) for point in found["points"]] for name, found in verification.get("curves", {}).items()}


def draw(curves: Mapping[str, Sequence[Point]], out: Path) -> None:
    """A picture of curves by name, as SVG or PNG. Needs matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "supportbot"  # the same figures give the same bytes
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    for (name, points), colour in zip(curves.items(), ("#1f6feb", "#c2410c"), strict=False):
        axes.plot([p.coverage for p in points], [p.accuracy for p in points], color=colour, label=name)
        for point in points:
            if point.threshold in TABLE[1:]:
                axes.plot(point.coverage, point.accuracy, "o", color=colour, markersize=4)
                axes.annotate(
                    f"{point.threshold:g}", (point.coverage, point.accuracy), (0, 6), textcoords="offset points", fontsize=8
                )
    axes.set_xlabel("share of the texts that are answered")
    axes.set_ylabel("accuracy of these answers")
    axes.set_title("Points: min_confidence", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else {})
