"""How sure the model is, and which labels it gives: since the start, and over the last minute, hour and day (`windows`).

Of a multi-label model, each predicted label counts, with its own confidence; a text may have several, or none. A confidence is
counted in millionths, as it is rounded in answers; what is compared with a bound (histogram, low confidence) is the number that the
client saw.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import add
from typing import Final

from models.problem import Problem
from models.types import Prediction
from server.observe.windows import MILLION, Windowed, share

# Upper bounds of the histogram's bins, inclusive as in Prometheus: a bin has the confidences over the bound before it (the first
# one from 0) up to its own.
BOUNDS: Final = tuple(bin_ / 20 for bin_ in range(1, 21))
_BOUNDS_IN_MILLIONTHS: Final = tuple(round(bound * MILLION) for bound in BOUNDS)


@dataclass(frozen=True, slots=True)
class Totals:
    """Since the start. `labels` counts predicted labels, `unlabelled` texts without any. `histogram` has a count of confidences for
    each of `BOUNDS`, not added up; `confidence_sum` is exact to 6 decimals.
    """

    seconds: float
    texts: int
    labels: Mapping[str, int]
    unlabelled: int
    histogram: tuple[int, ...]
    confidence_sum: float
    low: int


@dataclass(frozen=True, slots=True)
class Window:
    """What a window saw in the `seconds` it covers; mean and shares to 6 decimals, and None where it saw nothing to divide by.

    `mean` and `low_share` are of predicted labels, `label_shares` of texts; `label_means` has each label's mean confidence.
    """

    seconds: float
    texts: int
    mean: float | None
    low_share: float | None
    label_shares: Mapping[str, float | None]
    label_means: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All figures of one moment; windows by the names in `WINDOWS`."""

    totals: Totals
    windows: Mapping[str, Window]


class _Tally:
    """Counts of the texts of one bucket: by label how many there are, and in `millionths` the sum of their confidences."""

    __slots__ = ("labels", "low", "millionths", "number", "texts", "unlabelled")

    def __init__(self, labels: int) -> None:
        self.labels = [0] * labels
        self.clear(0)

    def clear(self, number: int) -> None:
        """Begin anew, as the bucket of this number."""
        self.number = number
        self.texts = 0
        self.unlabelled = 0
        self.low = 0
        self.labels = [0] * len(self.labels)
        self.millionths = [0] * len(self.labels)

    def add(self, other: _Tally) -> None:
        """Add another's counts."""
        self.texts += other.texts
        self.unlabelled += other.unlabelled
        self.low += other.low
        self.labels = list(map(add, self.labels, other.labels))
        self.millionths = list(map(add, self.millionths, other.millionths))


class Confidence(Windowed[_Tally]):
    """Counts answered texts of a model that gives labels. A confidence below `low` (to 6 decimals) is a low one; `clock` gives
    seconds and never goes back.
    """

    def __init__(self, problem: Problem, low: float, clock: Callable[[], float]) -> None:
        super().__init__(lambda: _Tally(len(problem.labels)), clock)
        self.low = round(low, 6)
        self._low_in_millionths = round(low * MILLION)
        self._problem = problem
        self._index = {label: index for index, label in enumerate(problem.labels)}
        self._histogram = [0] * len(BOUNDS)
        # Called for each text that is answered.
        self.observe: Callable[[Prediction], None] = self._observe_label if problem.gives_one_label else self._observe_labels

    def _observe_label(self, prediction: Prediction) -> None:
        """Count an answered text with its label. Takes well under a microsecond."""
        present = self._now()
        millionths = round(prediction.confidence * MILLION)
        index = self._index[prediction.label]
        present.labels[index] += 1
        present.millionths[index] += millionths
        present.texts += 1
        if millionths < self._low_in_millionths:
            present.low += 1
        self._histogram[bisect_left(_BOUNDS_IN_MILLIONTHS, millionths)] += 1

    def _observe_labels(self, prediction: Prediction) -> None:
        """Count an answered text with all labels that it was given."""
        present, chosen = self._now(), self._problem.chosen(prediction)
        present.texts += 1
        present.unlabelled += not chosen
        for index in chosen:
            millionths = round(prediction.scores[index] * MILLION)
            present.labels[index] += 1
            present.millionths[index] += millionths
            present.low += millionths < self._low_in_millionths
            self._histogram[bisect_left(_BOUNDS_IN_MILLIONTHS, millionths)] += 1

    def snapshot(self) -> Snapshot:
        """The figures as of now."""
        seconds, before = self._until_now()
        totals = Totals(
            seconds=seconds,
            texts=before.texts,
            labels=dict(zip(self._index, before.labels, strict=True)),
            unlabelled=before.unlabelled,
            histogram=tuple(self._histogram),
            confidence_sum=sum(before.millionths) / MILLION,
            low=before.low,
        )
        windows = {name: self._window(covered, tally) for name, (covered, tally) in self._windows(seconds).items()}
        return Snapshot(totals, windows)

    def report(self, model: str) -> Mapping[str, object]:
        """The figures as of now, as the body of `GET /confidence`: seconds to 1 decimal, means and shares to 6."""
        snapshot = self.snapshot()
        totals = snapshot.totals
        labels = sum(totals.labels.values())
        return {
            "model": model,
            "low_confidence_below": self.low,
            "since_start": {
                "seconds": round(totals.seconds, 1),
                "texts": totals.texts,
                "mean": share(sum(self._before.millionths), labels * MILLION),
                "low_share": share(totals.low, labels),
                "labels": dict(totals.labels),
                **({} if self._problem.gives_one_label else {"unlabelled": totals.unlabelled}),
                "histogram": {"up_to": list(BOUNDS), "texts": list(totals.histogram)},
            },
            "windows": {
                name: {
                    "seconds": round(window.seconds, 1),
                    "texts": window.texts,
                    "mean": window.mean,
                    "low_share": window.low_share,
                    "label_shares": dict(window.label_shares),
                    "label_means": dict(window.label_means),
                }
                for name, window in snapshot.windows.items()
            },
        }

    def _window(self, covered: float, total: _Tally) -> Window:
        labels = sum(total.labels)
        return Window(
            seconds=covered,
            texts=total.texts,
            mean=share(sum(total.millionths), labels * MILLION),
            low_share=share(total.low, labels),
            label_shares={label: share(count, total.texts) for label, count in zip(self._index, total.labels, strict=True)},
            label_means={
                label: share(millionths, count * MILLION)
                for label, count, millionths in zip(self._index, total.labels, total.millionths, strict=True)
            },
        )
