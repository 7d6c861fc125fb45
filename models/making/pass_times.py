"""What a pass takes, by the lengths of its texts: measured on this machine, and as a formula. Needs no torch.

The seconds of a pass are a sum of terms, which follow from how the engine lays out the texts, each times a coefficient. They are
fitted with the least sum of relative errors, so that a pass that was disturbed weighs little. What counts is the CPU time of the
thread: a pass waits for nothing but a core, and so what else the machine is doing matters less.

The formula is for passes that run alone; what others do to them beside them is seen in the server.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models import passes
from models.bundle import EngineName
from models.classifier import Classifier
from models.packing import near_length_groups
from models.types import Encoding

Floats = npt.NDArray[np.floating[Any]]
Terms = Callable[[Sequence[int]], tuple[float, ...]]

FIT_STEPS: Final = 30


@lru_cache(maxsize=1 << 16)
def planned(lengths: tuple[int, ...]) -> tuple[float, int]:
    """What the padding-free engine makes of a batch: its cost in tokens, by the constants that it plans with, and its cells."""
    cost, cells = 0.0, 0
    for group in passes.plan(lengths):
        rows, width, _ = passes.place([lengths[index] for index in group])
        cost += passes.RUN_COST + rows * width * (passes.SLOT_COST + passes.CELL_COST * width)
        cells += rows * width * width
    return cost + sum(lengths), cells


def padding_free_terms(lengths: Sequence[int]) -> tuple[float, ...]:
    """Of a batch in the padding-free engine: once, and for each planned token."""
    return 1.0, planned(tuple(sorted(lengths)))[0]


def padded_terms(lengths: Sequence[int]) -> tuple[float, ...]:
    """Of one pass that is padded to its longest text: once, for each slot, for each cell."""
    slots, longest = len(lengths) * max(lengths), max(lengths)
    return 1.0, float(slots), float(slots * longest)


def grouped_terms(lengths: Sequence[int]) -> tuple[float, ...]:
    """Of a batch in the padded engine, which divides it into passes of near lengths."""
    groups = [padded_terms([lengths[index] for index in group]) for group in near_length_groups(lengths)]
    return tuple(map(sum, zip(*groups, strict=True)))


SERVED_TERMS: Final[Mapping[EngineName, Terms]] = {"packed": padding_free_terms, "padded": grouped_terms}


def formula(terms: Terms, coefficients: Sequence[float]) -> Callable[[Sequence[int]], float]:
    """The seconds of a pass over texts of some lengths."""
    return lambda lengths: sum(factor * term for factor, term in zip(coefficients, terms(lengths), strict=True))


def fit(terms: Sequence[Sequence[float]], seconds: Sequence[float]) -> tuple[list[float], Floats]:
    """(coefficients, relative errors), with the least sum of the errors."""
    factors, found = np.array(terms), np.array(seconds)
    errors: Floats = np.ones(len(found))
    coefficients: Floats = np.zeros(factors.shape[1])
    for _ in range(FIT_STEPS):
        weights = 1 / found / np.sqrt(np.maximum(errors, 1e-3))
        coefficients = np.linalg.lstsq(factors * weights[:, None], found * weights, rcond=None)[0]
        errors = np.abs(factors @ coefficients / found - 1)
    return coefficients.tolist(), errors


def draw_batch(generator: random.Random, lengths: Sequence[int], max_items: int, max_cost: int) -> list[int]:
    """Indices of 1 to `max_items` texts within `max_cost` tokens: as they come, or, half of the time, neighbours in length."""
    size = generator.choice([size for size in (1, 2, 4, 8, 16, 32, 64) if size < max_items] + [max_items])
    drawn = generator.choices(range(len(lengths)), k=4 * size)
    if generator.random() < 0.5:
        drawn.sort(key=lengths.__getitem__)
        drawn = drawn[generator.randrange(3 * size + 1) :]
    drawn = drawn[:size]
    return drawn[: max(1, sum(total <= max_cost for total in accumulate(lengths[index] for index in drawn)))]


class PassTimer:
    """Times a classifier's passes over batches of `texts` within a server's limits, a little at a time; all so far counts."""

    def __init__(self, classifier: Classifier, texts: Sequence[Encoding], max_items: int, max_cost: int) -> None:
        self._classifier = classifier
        self._engine = classifier.manifest.engine
        self._texts = texts
        self._lengths = [len(text) for text in texts]
        self._limits = max_items, max_cost
        self._generator = random.Random(1)
        self._terms: list[tuple[float, ...]] = []
        self._seconds: list[float] = []
        classifier.warm_up()

    def measure(self, seconds: float) -> None:
        """Time passes for so long, and one at least."""
        end = time.perf_counter() + seconds
        # The first is not counted: it finds the caches as others left them.
        self._timed()
        while True:
            batch, taken = self._timed()
            self._terms.append(SERVED_TERMS[self._engine]([len(text) for text in batch]))
            self._seconds.append(taken)
            if time.perf_counter() >= end:
                return

    def seconds(self) -> Callable[[Sequence[int]], float]:
        """The formula by what was measured so far, scaled so that it is right on average, and not for the usual pass alone."""
        coefficients, _ = fit(self._terms, self._seconds)
        scale = sum(self._seconds) / float((np.array(self._terms) @ np.array(coefficients)).sum())
        return formula(SERVED_TERMS[self._engine], [scale * coefficient for coefficient in coefficients])

    def _timed(self) -> tuple[list[Encoding], float]:
        batch = [self._texts[index] for index in draw_batch(self._generator, self._lengths, *self._limits)]
        before = time.thread_time()
        self._classifier.predict(batch)
        return batch, time.thread_time() - before
