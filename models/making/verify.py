"""A bundle on labelled texts, next to a reference and in random batches: the figures, and the bounds that they break."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np

from models.classifier import Classifier
from models.making.dataset import DatasetError, Example
from models.making.evaluate import (
    Agreement,
    Compositions,
    Quality,
    agreement,
    compositions,
    encode_all,
    logits_alone,
    quality,
    targets_of,
)
from models.making.metrics import Floats, Indices
from models.problem import softmax

# Given a title and a number of steps, begins a progress bar and returns what advances it by some of them.
Watch: TypeAlias = Callable[[str, int], Callable[[int], None]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a bundle must hold; None is no bound. Those on texts are for each set, those on a reference for each set's changes.

    `max_change` and `max_composition_change` bound the largest change of any probability, `max_flips` the answers that get another
    label in any of the random batches.
    """

    min_accuracy: float | None = None
    min_macro_f1: float | None = None
    max_ece: float | None = None
    min_match: float | None = None
    max_change: float | None = None
    max_flips: int | None = None
    max_composition_change: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures over some labelled texts; `agreement` where there is a reference."""

    quality: Quality
    agreement: Agreement | None


@dataclass(slots=True)
class Report:
    """What `measure` found: `sets` by name, `together` over all their texts, `compositions` unless none were asked for."""

    sets: dict[str, Measured] = field(default_factory=dict)
    together: Measured | None = None
    compositions: Compositions | None = None

    def as_json(self) -> dict[str, Any]:
        """The report for `json.dumps`; `together` is `all` there."""
        return {
            "sets": {name: asdict(measured) for name, measured in self.sets.items()},
            "all": asdict(self.together) if self.together else None,
            "compositions": asdict(self.compositions) if self.compositions else None,
        }

    def faults(self, bounds: Bounds) -> list[str]:
        """Each bound that does not hold, in words. A figure that is not a number holds no bound."""
        found: list[str] = []
        for name, measured in self.sets.items():
            compared = measured.agreement
            found += _below(f"{name}: accuracy", measured.quality.accuracy, bounds.min_accuracy)
            found += _below(f"{name}: macro-F1", measured.quality.macro_f1, bounds.min_macro_f1)
            found += _above(f"{name}: ECE", measured.quality.ece, bounds.max_ece)
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
    temperature = classifier.manifest.temperature
    report = Report()
    texts = {name: [example.text for example in examples] for name, examples in sets.items()}
    targets: dict[str, Indices] = {}
    alone: dict[str, Floats] = {}
    expected: dict[str, Floats] = {}
    for name, rows in texts.items():
        try:
            targets[name] = targets_of(sets[name], classifier.labels)
            alone[name] = logits_alone(classifier, rows, watch(f"{name}: bundle", len(rows)))
            if reference is not None:
                logits = logits_alone(reference, rows, watch(f"{name}: reference", len(rows)))
                expected[name] = logits / reference.manifest.temperature
        except DatasetError as error:
            raise DatasetError(f"{name}: {error}") from error
        report.sets[name] = Measured(
            quality(targets[name], alone[name], temperature), _compare(alone, expected, [name], temperature)
        )
    if not sets:
        return report
    joined = np.concatenate(list(alone.values()))
    judged = quality(np.concatenate(list(targets.values())), joined, temperature)
    report.together = Measured(judged, _compare(alone, expected, list(sets), temperature))
    if batches:
        encodings = [encoding for rows in texts.values() for encoding in encode_all(classifier, rows)]
        on_step = watch("random batches", batches)
        report.compositions = compositions(classifier, encodings, joined, batches, temperature, on_step=on_step)
    return report


def _compare(
    alone: Mapping[str, Floats], expected: Mapping[str, Floats], names: Sequence[str], temperature: float
) -> Agreement | None:
    """The sets' logits with the reference's, which are divided by its temperature already."""
    if not expected:
        return None
    ours, theirs = (np.concatenate([logits[name] for name in names]) for logits in (alone, expected))
    return agreement(softmax(ours / temperature), softmax(theirs))
