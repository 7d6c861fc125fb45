"""The whole of it in bounded time: find the highest rate, learn what the machine costs, judge the simulation, size machines.

First saturation, for a guess; then the search; then rounds, each with a bit of everything else: what the model is made of (passes
alone, a light load, the highest rate) and the points by which it is judged. In turns, since the speed of a machine that is shared
with others changes by the minute, and shall be the same for both.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capacity.load import CLIENTS, Load, Step
from capacity.model import Model, calibrated
from capacity.search import Found, OutOfTime, search
from loadtest.processes import allow_many_files, running_server
from machine.cores import usable_cores
from models.classifier import Classifier
from models.making.pass_times import PassTimer
from server.settings import Settings

SATURATION_SHARE: Final = 0.05
SEARCH_SHARE: Final = 0.45
ROUNDS_SHARE: Final = 0.5
ROUNDS: Final = 3
# Of the time for the search, what one try of a rate takes at most.
TRY_SHARE: Final = 0.1
# Of the saturated rate.
FIRST_GUESS: Final = 0.85
# Rates nearer to each other than that could not be told apart in such short tries.
TOLERANCE: Final = 0.04
# Of the time of a round: passes alone, and each of the steps.
PASSES_PART: Final = 0.1
STEP_PART: Final = 0.18
# Rates, as shares of the highest one.
LIGHT_LOAD: Final = 0.2
POINT_LOADS: Final = (0.3, 0.6, 0.85)
CORES: Final = (1, 2, 4, 8, 16, 32)

OnTime = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a server does: its rate when it is never without work, all tries of the search, and what was found."""

    saturated: float
    tries: Sequence[Step]
    found: Found


@dataclass(frozen=True, slots=True)
class Point:
    """A rate as it was measured, in seconds, and as it was simulated; `others` is the cores that other processes took."""

    rate: float
    p50: float
    p99: float
    simulated_p50: float
    simulated_p99: float
    others: float

    @property
    def errors(self) -> tuple[float, float]:
        """Of the simulated p50 and p99, relative to the measured ones."""
        return self.simulated_p50 / self.p50 - 1, self.simulated_p99 / self.p99 - 1


@dataclass(frozen=True, slots=True)
class Size:
    """What one machine of so many cores does within the bound, simulated: None if it cannot be; and the loop's busy share there."""

    cores: int
    rate: float | None
    loop: float


@dataclass(frozen=True, slots=True)
class Sizing:
    """What the simulation says: of the points, of the highest rate `here` (with the client on the same cores), and of sizes.

    `cores` is the number that this machine has.
    """

    cores: int
    model: Model
    points: Sequence[Point]
    here: float | None
    sizes: Sequence[Size]


def measure(load: Load, bound: float, seconds: float, on_time: OnTime) -> Measured:
    """Find the highest rate with p99 within `bound` seconds. `on_time` is told the seconds that went by. Raises `ServerFailed`."""
    saturated = load.saturate(seconds * SATURATION_SHARE)
    on_time(seconds * SATURATION_SHARE)
    tries: list[Step] = []
    longest = seconds * SEARCH_SHARE * TRY_SHARE
    begun = told = time.perf_counter()

    def is_good(rate: float) -> bool:
        nonlocal told
        if time.perf_counter() - begun + longest > seconds * SEARCH_SHARE:
            raise OutOfTime
        tries.append(load.offer(rate, longest, bound))
        now = time.perf_counter()
        on_time(now - told)
        told = now
        return tries[-1].meets(bound)

    found = search(is_good, saturated * FIRST_GUESS, tolerance=TOLERANCE)
    on_time(max(0.0, seconds * SEARCH_SHARE - (told - begun)))
    return Measured(saturated, tries, found)


def measure_and_size(
    settings: Settings, bundle: Path, texts: Sequence[str], bound: float, seconds: float, on_time: OnTime
) -> tuple[str, Measured, Sizing | None]:
    """(the model's identity, measured, simulated) of a server of our own with these settings; nothing simulated if no rate will do.

    Raises `BundleError`, `SettingsError` and `ServerFailed`.
    """
    classifier, cores = Classifier.open(bundle), usable_cores()
    policy = settings.batch_policy(cores)
    allow_many_files()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        # Texts come again here, and are to be computed again; and a log of predictions is about customers.
        environment = {"BUNDLE": str(bundle.resolve()), "ANSWER_CACHE_TEXTS": "0"}
        if settings.prediction_log is not None:
            environment["PREDICTION_LOG"] = str(Path(folder) / "predictions.jsonl")
        with running_server([sys.executable, "-m", "commands", "serve"], environment, log) as server:
            clients = min(max(CLIENTS, 2 * policy.workers * policy.max_items), policy.max_queued)
            load = Load(server.url, texts, server, clients)
            measured = measure(load, bound, seconds, on_time)
            highest = measured.found.confirmed
            if highest is None:
                return classifier.identity, measured, None
            encodings = [classifier.encode(text) for text in texts]
            timer = PassTimer(classifier, encodings, policy.max_items, policy.max_cost)
            rounds = [_round(load, timer, highest, seconds * ROUNDS_SHARE / ROUNDS, on_time) for _ in range(ROUNDS)]
    light, *points, full = zip(*rounds, strict=True)
    lengths = [len(encoding) for encoding in encodings]
    model = calibrated(timer.seconds(), policy, lengths, cores, light, full)
    judged = [_point(steps, model) for steps in points]
    here = model.highest_rate(bound, highest)
    return classifier.identity, measured, Sizing(cores, model, judged, here, sizes(model, bound, highest, cores))


def _round(load: Load, timer: PassTimer, highest: float, seconds: float, on_time: OnTime) -> list[Step]:
    """Steps of a light load, of the points, and of the highest rate; and passes timed."""
    timer.measure(seconds * PASSES_PART)
    steps = [load.offer(highest * share, seconds * STEP_PART) for share in (LIGHT_LOAD, *POINT_LOADS, 1.0)]
    on_time(seconds)
    return steps


def _point(steps: Sequence[Step], model: Model) -> Point:
    """The middle one of the rounds, in everything: a single round may have been disturbed."""
    simulated = [model.replay(step) for step in steps]
    return Point(
        steps[0].rate,
        p50=statistics.median(step.p50 for step in steps),
        p99=statistics.median(step.p99 for step in steps),
        simulated_p50=statistics.median(one.p50 for one in simulated),
        simulated_p99=statistics.median(one.p99 for one in simulated),
        others=statistics.fmean(step.costs.others for step in steps if step.costs is not None),
    )


def sizes(model: Model, bound: float, highest: float, cores: int) -> list[Size]:
    """What machines of more or fewer cores would do; `highest` is what this one, of so many `cores`, does."""
    found = []
    for number in sorted({*CORES, cores}):
        other = model.with_cores(number)
        rate = other.highest_rate(bound, highest * number / cores)
        found.append(Size(number, rate, other.offer(rate).loop if rate else 0.0))
    return found


def machines_for(load: float, rate: float) -> int:
    """How many machines, each good for a rate, a load needs when it is spread at random over them.

    Parts of random arrivals (Poisson) are random again, so each machine sees what it was measured with.
    """
    return max(1, math.ceil(load / rate))
