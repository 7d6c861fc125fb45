"""What this machine makes of a bundle: the cost of a pass over its tokens, and what more workers bring. Needs no torch.

The cost curve is measured in one thread, with the texts' real planning into passes. Each round measures every point once, on texts
drawn anew, so that a disturbance of the machine falls on all points alike; what counts is the median over the rounds. Batches of a
budget are filled in the order in which texts come, so what a budget leaves empty because the next text is too long is in its cost.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from models.classifier import Classifier
from models.types import Encoding

# The lengths of tickets, in tokens: lognormal, mean 35, cut at both ends.
MEDIAN_TOKENS: Final = 26
SIGMA: Final = 0.85
SHORTEST: Final = 4
LONGEST: Final = 128
LENGTHS: Final = 4096

BUDGETS: Final = (16, 32, 64, 128, 256, 512, 1024)
COUNTS: Final = (1, 2, 4, 8, 16, 32)
# A budget or a number of workers this near to the best is as good, and smaller ones answer sooner and leave cores to others.
NEAR: Final = 0.05
LEAST_ROUNDS: Final = 3
# How often each number of workers is tried, in turns, and on how many different batches.
TURNS: Final = 3
BATCHES: Final = 64


def ticket_lengths(count: int, longest: int = LONGEST, seed: int = 1) -> list[int]:
    """Lengths in tokens as tickets have them, none over `longest`."""
    drawn = np.random.default_rng(seed).lognormal(np.log(MEDIAN_TOKENS), SIGMA, count)
    return [int(length) for length in np.clip(np.rint(drawn), min(SHORTEST, longest), longest)]


class Workload:
    """Texts of tokens drawn at random, seeded, with lengths drawn from `lengths` (in tokens, special tokens included).

    `typical` are encodings of real texts: their first and last token begin and end every text, the others fill it.
    """

    def __init__(self, typical: Sequence[Encoding], lengths: Sequence[int], seed: int = 1) -> None:
        self._random = np.random.default_rng(seed)
        self._lengths = np.array(lengths)
        self._ends = typical[0].ids[0], typical[0].ids[-1]
        self._ids = np.concatenate([encoding.ids[1:-1] or encoding.ids for encoding in typical])
        self.longest = int(self._lengths.max())
        self.mean = float(self._lengths.mean())
        self._waiting = self._draw()

    @classmethod
    def of_tickets(cls, typical: Sequence[Encoding], max_length: int) -> Workload:
        """With lengths as tickets have them, and none over `max_length`."""
        return cls(typical, ticket_lengths(LENGTHS, min(LONGEST, max_length)))

    def filled(self, budget: int) -> list[Encoding]:
        """The next texts as they come, as many as a batch of so many tokens takes in their order: one always, then those that fit.

        The first that does not fit begins the next batch; were it drawn anew, small budgets would see fewer long texts.
        """
        lengths = [self._waiting]
        while sum(lengths) + (length := self._draw()) <= budget:
            lengths.append(length)
        self._waiting = length
        return [self._text(length) for length in lengths]

    def _draw(self) -> int:
        return int(self._random.choice(self._lengths))

    def of_count(self, tokens: int, count: int) -> list[Encoding] | None:
        """So many texts with that many tokens in all, in the proportions of the mix; None where no such texts are."""
        if not min(SHORTEST, self.longest) * count <= tokens <= self.longest * count:
            return None
        drawn = self._random.choice(self._lengths, count)
        lengths = np.clip(drawn * tokens // drawn.sum(), 1, self.longest)
        while gap := tokens - int(lengths.sum()):
            lengths[lengths.argmin() if gap > 0 else lengths.argmax()] += 1 if gap > 0 else -1
        return [self._text(int(length)) for length in lengths]

    def _text(self, length: int) -> Encoding:
        first, last = self._ends
        middle = self._random.choice(self._ids, max(0, length - 2)).tolist()
        return Encoding((first, *middle, last)[:length], truncated=False)


@dataclass(frozen=True, slots=True)
class Point:
    """The cost of a batch of `count` texts with `budget` tokens in all, or, where it is None, filled up to `budget` as texts come.

    `tokens` and `texts` are the means of what was in a batch, `milliseconds` is the median for a batch, `per_token` microseconds.
    """

    budget: int
    count: int | None
    tokens: float
    texts: float
    milliseconds: float
    per_token: float


@dataclass(frozen=True, slots=True)
class _Run:
    """Batches that ran one after the other, and how many texts and tokens were in all of them."""

    batches: int
    texts: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rate:
    """The median throughput of `workers` threads that run passes of their own, `threads` compute threads in each pass."""

    workers: int
    threads: int
    texts_per_second: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured, in `rounds` rounds, and what follows: `budget` in tokens a batch, and `workers`."""

    rounds: int
    points: list[Point]
    rates: list[Rate]
    budget: int
    workers: int

    def curve(self, count: int | None = None) -> list[Point]:
        """The points of one number of texts, or those of batches filled as texts come, by budget."""
        return [point for point in self.points if point.count == count]

    def settings(self) -> dict[str, str]:
        """The server's settings to recommend, by their names in the environment."""
        return {"BATCH_MAX_TOKENS": str(self.budget), "WORKERS": str(self.workers)}


def tune(
    classifier: Classifier,
    threaded: Classifier | None,
    workload: Workload,
    cores: int,
    seconds: float,
    on_time: Callable[[float], None],
) -> Tuning:
    """Measure for some `seconds`, half of them the cost curve, half of them 1 worker, `cores` workers and half as many.

    `threaded` is the same bundle opened with `cores` threads a pass, to compare with; `on_time` is told the seconds that went by.
    """
    rounds, points = _cost_curve(classifier, workload, seconds / 2, on_time)
    budget = knee([point for point in points if point.count is None])
    rates = _rates(classifier, threaded, [workload.filled(budget) for _ in range(BATCHES)], cores, seconds / 2, on_time)
    return Tuning(rounds, points, rates, budget, fewest_workers(rates))


def knee(curve: Sequence[Point]) -> int:
    """The smallest budget whose cost per token is within 5 % of the best."""
    best = min(point.per_token for point in curve)
    return min(point.budget for point in curve if point.per_token <= best * (1 + NEAR))


def fewest_workers(rates: Sequence[Rate]) -> int:
    """The fewest workers, one thread each, whose throughput is within 5 % of the best."""
    served = [rate for rate in rates if rate.threads == 1]
    best = max(rate.texts_per_second for rate in served)
    return min(rate.workers for rate in served if rate.texts_per_second >= best * (1 - NEAR))


def _cost_curve(
    classifier: Classifier, workload: Workload, seconds: float, on_time: Callable[[float], None]
) -> tuple[int, list[Point]]:
    """(rounds, points): as many rounds as there is time for, and `LEAST_ROUNDS` at least."""
    runs: dict[tuple[int, int | None], list[_Run]] = defaultdict(list)
    classifier.warm_up()
    start = told = time.perf_counter()
    rounds = 0
    while rounds < LEAST_ROUNDS or time.perf_counter() - start < seconds:
        for budget, count in itertools.product(BUDGETS, (None, *COUNTS)):
            if count is None:
                # Batches differ in how full they are: a run of some, to see the usual mix of them.
                batches = [workload.filled(budget) for _ in range(-(-BUDGETS[-1] // budget))]
            elif batch := workload.of_count(budget, count):
                batches = [batch]
            else:
                continue
            before = time.perf_counter()
            for batch in batches:
                classifier.logits(batch)
            now = time.perf_counter()
            texts = [len(encoding) for batch in batches for encoding in batch]
            runs[budget, count].append(_Run(len(batches), len(texts), sum(texts), now - before))
            on_time(now - told)
            told = now
        rounds += 1
    points = [
        Point(
            budget,
            count,
            tokens=statistics.fmean(run.tokens / run.batches for run in same),
            texts=statistics.fmean(run.texts / run.batches for run in same),
            milliseconds=statistics.median(run.seconds / run.batches for run in same) * 1e3,
            per_token=statistics.median(run.seconds / run.tokens for run in same) * 1e6,
        )
        for (budget, count), same in runs.items()
    ]
    return rounds, points


def _rates(
    classifier: Classifier,
    threaded: Classifier | None,
    batches: Sequence[Sequence[Encoding]],
    cores: int,
    seconds: float,
    on_time: Callable[[float], None],
) -> list[Rate]:
    """Every number of workers in turns, for equal shares of the time."""
    ways = [(classifier, workers, 1) for workers in sorted({1, max(1, cores // 2), cores})]
    if threaded is not None:
        ways.append((threaded, 1, cores))
    share = seconds / (TURNS * len(ways))
    found: dict[tuple[int, int], list[float]] = defaultdict(list)
    for _ in range(TURNS):
        for model, workers, threads in ways:
            found[workers, threads].append(_throughput(model, batches, workers, share))
            on_time(share)
    return [Rate(workers, threads, statistics.median(values)) for (workers, threads), values in found.items()]


def _throughput(classifier: Classifier, batches: Sequence[Sequence[Encoding]], workers: int, seconds: float) -> float:
    """Texts a second of so many threads, each taking the next batch when it is done with one; at least one batch each."""
    turn = itertools.cycle(batches)
    deadline = time.perf_counter() + seconds

    def work(_: int) -> float:
        start = time.perf_counter()
        done = 0
        while not done or time.perf_counter() < deadline:
            batch = next(turn)  # one step of the interpreter, so threads need no lock
            classifier.logits(batch)
            done += len(batch)
        return done / (time.perf_counter() - start)

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(work, range(workers)))


def write_settings(path: Path, settings: Mapping[str, str]) -> None:
    """Set variables in an env file; all its other lines stay, and it is never seen half written.

    Raises `OSError`, and `UnicodeDecodeError` for a file that is not UTF-8.
    """
    path = path.resolve()  # a link stays a link
    missing = dict(settings)
    lines: list[str] = []
    old = path.read_bytes().decode() if path.exists() else ""
    # Not splitlines, which also splits at characters that may stand in a value.
    for line in old.removesuffix("\n").split("\n") if old else []:
        name = line.partition("=")[0].strip().removeprefix("export ").strip().upper()
        if name in settings and "=" in line:
            if name in missing:  # a second line of the same name would win
                lines.append(f"{name}={missing.pop(name)}")
        else:
            lines.append(line)
    lines += [f"{name}={value}" for name, value in missing.items()]
    # Such files hold secrets: nobody else may read it before it has its mode.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write("".join(f"{line}\n" for line in lines).encode())
        if path.exists():
            Path(temporary).chmod(path.stat().st_mode & 0o777)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def draw(tuning: Tuning, title: str, path: Path) -> None:
    """The cost curves as a picture in the format of the suffix. Needs matplotlib. Raises `OSError`, `ValueError` for the suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for count in COUNTS:
        if curve := tuning.curve(count):
            label = "1 text" if count == 1 else f"{count} texts"
            axis.plot([point.budget for point in curve], [point.per_token for point in curve], ".-", linewidth=1, label=label)
    curve = tuning.curve()
    points = [point.budget for point in curve], [point.per_token for point in curve]
    axis.plot(*points, "o-", color="black", linewidth=2.5, label="filled as texts come")
    axis.axvline(tuning.budget, color="grey", linestyle="--", label=f"BATCH_MAX_TOKENS={tuning.budget}")
    axis.set_xscale("log", base=2)
    axis.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS])
    axis.set_ylim(bottom=0)
    axis.set(xlabel="tokens that a batch may hold", ylabel="microseconds a token, one thread (less is better)", title=title)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
