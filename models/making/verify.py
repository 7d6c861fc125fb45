"""A bundle on labelled texts, next to a reference and in random batches: the figures, and the bounds that they break."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np

from models.classifier import Classifier
from models.making.dataset import DatasetError, Example
from models.making.evaluate import Agreement, Compositions, agreement, compositions, encode_all, logits_alone
from models.making.judge import Judge, Quality, Truth, judge_of
from models.making.metrics import Floats
from models.problem import Problem

# Given a title and a number of steps, begins a progress bar and returns what advances it by some of them.
Watch: TypeAlias = Callable[[str, int], Callable[[int], None]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a bundle must hold; None is no bound. Those on texts are for each set, those on a reference for each set's changes.

    `max_change` and `max_composition_change` bound the largest change of any probability or number, `max_flips` the answers that
    get other labels in any of the random batches.
    """

    min_accuracy: float | None = None
    min_macro_f1: float | None = None
    min_micro_f1: float | None = None
    min_map: float | None = None
    min_exact_match: float | None = None
    max_mae: float | None = None
    min_spearman: float | None = None
    max_ece: float | None = None
    min_match: float | None = None
    max_change: float | None = None
    max_flips: int | None = None
    max_composition_change: float | None = None


# Of each bound on a figure: the figure, and its name.
FIGURES: Final[Mapping[str, tuple[str, str]]] = {
    "min_accuracy": ("accuracy", "accuracy"),
    "min_macro_f1": ("macro_f1", "macro-F1"),
    "min_micro_f1": ("micro_f1", "micro-F1"),
    "min_map": ("mean_average_precision", "mean average precision"),
    "min_exact_match": ("exact_match", "exact match"),
    "max_mae": ("mae", "mean absolute error"),
    "min_spearman": ("spearman", "Spearman"),
    "max_ece": ("ece", "ECE"),
}


def figures_of(quality: Quality) -> dict[str, float]:
    """The figures that bounds may be on, by name, in words."""
    found = {words: getattr(quality, figure, None) for figure, words in FIGURES.values()}
    return {words: value for words, value in found.items() if value is not None}


def impossible(bounds: Bounds, problem: Problem) -> list[str]:
    """The names of the bounds for which nothing is measured of such a model: they would seem to hold."""
    figures = judge_of(problem).figures
    wanted = [name for name, value in asdict(bounds).items() if value is not None]
    return [
        name
        for name in wanted
        if (name in FIGURES and FIGURES[name][0] not in figures)
        or (name in {"min_match", "max_flips"} and not problem.gives_labels)
    ]


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures over some labelled texts; `agreement` where there is a reference."""

    quality: Quality
    agreement: Agreement | None

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {"quality": self.quality.as_json(), "agreement": asdict(self.agreement) if self.agreement else None}


@dataclass(slots=True)
class Report:
    """What `measure` found: `sets` by name, `together` over all their texts, `compositions` unless none were asked for."""

    sets: dict[str, Measured] = field(default_factory=dict)
    together: Measured | None = None
    compositions: Compositions | None = None

    def as_json(self) -> dict[str, Any]:
        """The report for `json.dumps`; `together` is `all` there."""
        return {
            "sets": {name: measured.as_json() for name, measured in self.sets.items()},
            "all": self.together.as_json() if self.together else None,
            "compositions": asdict(self.compositions) if self.compositions else None,
        }

    def faults(self, bounds: Bounds) -> list[str]:
        """Each bound that does not hold, in words. A figure that is not a number holds no bound."""
        found: list[str] = []
        for name, measured in self.sets.items():
            compared = measured.agreement
            for bound, (figure, words) in FIGURES.items():
                check = _below if bound.startswith("min_") else _above
                value = getattr(measured.quality, figure, math.nan)
                found += check(f"{name}: {words}", value, getattr(bounds, bound))
            if compared is not None:
                found += _below(f"{name}: label match", compared.label_match, bounds.min_match)
                found += _above(f"{name}: largest probability change", compared.largest_probability_change, bounds.max_change)
        if (tried := self.compositions) is not None:
            found += _above("random batches: flips", tried.flips, bounds.max_flips)
            change = tried.largest_probability_change
            found += _above("random batches: largest probability change", change, bounds.max_composition_change)
        return found


def _below(what: str, value: float, bound: float | None) -> list[str]:
    return [] if bound is None or value >= bound else [f"{what} {value:.6g} is below {bound:g}"]


def _above(what: str, value: float, bound: float | None) -> list[str]:
    return [] if bound is None or value <= bound else [f"{what} {value:.6g} is above {bound:g}"]


def measure(
    classifier: Classifier, sets: Mapping[str, Sequence[Example]], reference: Classifier | None, batches: int, watch: Watch
) -> Report:
    """Classify each set's texts alone, with the reference too if there is one, then all texts in as many random batches.

    The reference's labels must be the classifier's, in the same order. Raises `DatasetError` for labels that the classifier does
    not have and for texts without a token, naming the set.
    """
    temperature, judge = classifier.manifest.temperature, judge_of(classifier.problem)
    report = Report()
    texts = {name: [example.text for example in examples] for name, examples in sets.items()}
    truths: dict[str, Truth] = {}
    alone: dict[str, Floats] = {}
    expected: dict[str, Floats] = {}
    for name, rows in texts.items():
        try:
            truths[name] = judge.truth(sets[name])
            alone[name] = logits_alone(classifier, rows, watch(f"{name}: bundle", len(rows)))
            if reference is not None:
                logits = logits_alone(reference, rows, watch(f"{name}: reference", len(rows)))
                expected[name] = logits / reference.manifest.temperature
        except DatasetError as error:
            raise DatasetError(f"{name}: {error}") from error
        judged = judge.quality(truths[name], judge.problem.scores(alone[name] / temperature))
        report.sets[name] = Measured(judged, _compare(judge, alone, expected, [name], temperature))
    if not sets:
        return report
    joined = np.concatenate(list(alone.values()))
    judged = judge.quality(np.concatenate(list(truths.values())), judge.problem.scores(joined / temperature))
    report.together = Measured(judged, _compare(judge, alone, expected, list(sets), temperature))
    if batches:
        encodings = [encoding for rows in texts.values() for encoding in encode_all(classifier, rows)]
        on_step = watch("random batches", batches)
        report.compositions = compositions(classifier, encodings, joined, batches, temperature, on_step=on_step)
    return report


def _compare(
    judge: Judge, alone: Mapping[str, Floats], expected: Mapping[str, Floats], names: Sequence[str], temperature: float
) -> Agreement | None:
    """The sets' logits with the reference's, which are divided by its temperature already."""
    if not expected:
        return None
    ours, theirs = (np.concatenate([logits[name] for name in names]) for logits in (alone, expected))
    scores = judge.problem.scores
    return agreement(judge.problem, scores(ours / temperature), scores(theirs))
