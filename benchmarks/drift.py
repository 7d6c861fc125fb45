"""`python -m benchmarks.drift DATA`: false alarms, delays and estimates of `drift/`, on streams drawn from real texts.

DATA is the folder of the ticket data. All its texts are read by the embedded model once (two minutes). The in-domain test texts are
then divided: a third fits the profile (with the training texts), the others are the population of normal texts. A baseline is so
many texts drawn from that population, a stream is drawn from it, too, with the change mixed in: so the baseline is as good as its
size lets it be, and no better. Each figure is from several baselines, since one may be lucky.

A block has 16 texts unless said otherwise. Delays are in texts, from the change to the alarm; no stream has a warning of it.

Parts: `separation`, `stationary`, `delays`, `references`, `frontier`, `outcome`, `weeks`, `accuracy`, `words`, `cost`; all by
default. `--peers` writes the streams' scores for `benchmarks.drift_peers`; `benchmarks.drift_picture` draws the rows of both.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.console import say
from benchmarks.drift_texts import PRODUCTS, Array, Reader, Texts, population
from drift import LEVELS, Baseline, Counts, LevelName, Monitor, Observations, Profile, learn_profile
from drift.detector import Detector, advance
from drift.monitor import TOLERANCE
from drift.outcome import outcome_values
from drift.words import changed_words, count_words

YEAR: Final = 525_600.0  # blocks of a minute
WEEK: Final = 7 * 1440  # minutes
BLOCK: Final = 16
HOT: Final = 20  # texts that are sent again and again
BASELINES: Final = 8
REFERENCE: Final = 20_000
SPECIALS: Final = (101, 102)
SHARES: Final = (0.5, 0.25, 0.1, 0.05, 0.02)

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """The profile and, for each kind of text, the places of its texts' bins in a vector of counts: [texts, channels]."""

    reader: Reader
    profile: Profile
    texts: dict[str, Texts]
    normal: Indices
    places: dict[str, Indices]

    @property
    def width(self) -> int:
        """Of a vector of counts."""
        return self.profile.layout.width

    def count(self, places: Indices, chosen: Indices) -> Counts:
        """The counts of several streams' blocks at once: `chosen` has shape [streams, texts], the counts [streams, width]."""
        streams = len(chosen)
        # What has no bin lies in one more, which is cut off.
        flat = places[chosen] + (np.arange(streams) * (self.width + 1))[:, None, None]
        return np.bincount(flat.ravel(), minlength=streams * (self.width + 1)).reshape(streams, -1)[:, : self.width]

    def baseline(self, texts: int, seed: int) -> Baseline:
        """So many texts of the population."""
        chosen = np.random.default_rng(seed).integers(len(self.normal), size=(1, texts))
        return Baseline(self.profile.layout, self.count(self.places["normal"], chosen))


def part(texts: Texts, chosen: Indices) -> Texts:
    """Some of the texts."""
    return Texts(
        [texts.ids[k] for k in chosen], texts.foreign[chosen], texts.logits[chosen], texts.first[chosen], texts.true[chosen],
        [texts.sources[k] for k in chosen],
    )  # fmt: skip


def make_world(data: Path, seed: int = 0) -> World:
    """Read all texts, learn the profile, and sort all texts into bins."""
    reader = Reader()
    texts = population(data, reader)
    order = np.random.default_rng(seed).permutation(len(texts["in domain"]))
    fit, normal = order[: len(order) // 3], order[len(order) // 3 :]
    held_out = part(texts["in domain"], fit)
    # The error estimate must have seen errors: the held-out texts with typing errors, nothing that is tested as it is.
    harder = [(reader.observe(changed), changed.true) for changed in (part(texts["typing errors 8 %"], fit),)]
    profile = learn_profile(
        reader.observe(texts["train"]), reader.observe(held_out), held_out.true,
        labels=reader.labels, vocabulary=reader.vocabulary, specials=SPECIALS, harder=harder,
    )  # fmt: skip
    kinds = {name: found for name, found in texts.items() if name != "train"}
    # The same third is left out of all changed texts.
    kinds = {name: part(found, normal) if len(found) == len(order) else found for name, found in kinds.items()}
    kinds["normal"] = kinds.pop("in domain")
    places = {name: bins(profile, reader.observe(found), found.true) for name, found in kinds.items()}
    return World(reader, profile, kinds, normal, places)


def bins(profile: Profile, texts: Observations, true: Indices) -> Indices:
    """The place of each text's bin in a vector of counts, or the width where it has none: [texts, channels]. All have feedback."""
    layout = profile.layout
    values = profile.channels(texts) | outcome_values(profile.labels, texts.labels, true, texts.confidence)
    columns = []
    for channel in layout.channels:
        found = channel.place(values[channel.name])
        columns.append(np.where(found >= 0, found + layout.place(channel.name).start, layout.width))
    return np.stack(columns, axis=1)


Chooser = Callable[[np.random.Generator, int, int], Indices]


def mixed(world: World, other: Indices, share: float) -> tuple[Indices, Chooser]:
    """Texts, and a chooser of [streams, texts] of them: normal ones, and this share of others."""
    normal = world.places["normal"]

    def choose(rng: np.random.Generator, streams: int, texts: int) -> Indices:
        strange = len(normal) + rng.integers(len(other), size=(streams, texts))
        return np.where(rng.random((streams, texts)) < share, strange, rng.integers(len(normal), size=(streams, texts)))

    return np.concatenate([normal, other]), choose


@dataclass(frozen=True)
class Delays:
    """Texts to the alarm, infinite where there was none among `most`."""

    texts: Array
    most: int

    def __str__(self) -> str:
        found = np.isfinite(self.texts)
        if found.mean() < 0.5:
            return f"found in {found.mean():.0%} of {self.most:,}"
        median, slow = (float(np.quantile(self.texts, level, method="higher")) for level in (0.5, 0.9))
        return f"{median:,.0f} ({slow:,.0f})"


def delays(  # noqa: PLR0913 - all that a run is made of
    world: World,
    level: LevelName,
    places: Indices,
    choose: Chooser,
    *,
    reference: int = REFERENCE,
    streams: int = 80,
    most: int = 40_000,
    block: int = BLOCK,
    promised: float = YEAR,
) -> Delays:
    """The delays of one level's detector on streams, over several baselines."""
    found = []
    for number in range(BASELINES):
        baseline = world.baseline(reference, 100 + number)
        detector = Detector(baseline, level, blocks=promised, tolerance=TOLERANCE.get(level, 0.0))
        rng = np.random.default_rng(1000 + number)
        log_m = np.full((streams // BASELINES, len(detector.ceilings)), -np.inf)
        first = np.full(len(log_m), np.inf)
        for number_of_block in range(1, most // block + 1):
            counts = world.count(places, choose(rng, len(log_m), block))
            log_m = np.minimum(advance(log_m, detector.experts.evidence(counts, 0, detector.cap)), detector.ceilings)
            alarms = (detector.experts.mean(log_m) >= detector.threshold) & np.isinf(first)
            first[alarms] = number_of_block * block
            if np.isfinite(first).all():
                break
        found.append(first)
    return Delays(np.concatenate(found), most)


def separation(world: World) -> None:
    """How well each score tells a kind's texts from normal ones: AUC."""
    names = ("novelty", "rare", "pairs", "residual", "combined", "error")
    scores = {kind: world.profile.scores(world.reader.observe(texts)) for kind, texts in world.texts.items()}
    say(f"| texts | {' | '.join(names)} | confidence |")
    for kind, texts in world.texts.items():
        if kind != "normal":
            cells = [auc(scores["normal"][name], scores[kind][name]) for name in names]
            unsure = [-world.reader.observe(each).confidence for each in (world.texts["normal"], texts)]
            say(f"| {kind} | {' | '.join(f'{cell:.3f}' for cell in (*cells, auc(*unsure)))} |")


def auc(normal: Array, other: Array) -> float:
    """The chance that another text scores higher than a normal one."""
    order = np.sort(normal)
    return float(np.mean([np.searchsorted(order, other, side) for side in ("left", "right")]) / len(order))


def stationary(world: World, streams: int = 200, texts: int = 100_000) -> None:
    """False alarms of all levels where nothing changes; at the outcome, all texts have feedback."""
    places = world.places["normal"]
    for level in LEVELS:
        found = delays(
            world, level, places, lambda rng, streams, texts: rng.integers(len(places), size=(streams, texts)),
            streams=streams, most=texts,
        )  # fmt: skip
        say(f"stationary, {level}: {np.isfinite(found.texts).sum()} alarms in {streams} streams of {texts:,} texts")


def tell_delays(world: World) -> None:
    """Delays for each change."""
    kinds = [kind for kind in world.places if kind != "normal"]
    say(f"| change | level | {' | '.join(f'{share:.0%}' for share in SHARES)} |")
    for kind in kinds:
        for level in ("input", "output"):
            cells = [str(delays(world, level, *mixed(world, world.places[kind], share))) for share in SHARES]
            say(f"| {kind} | {level} | {' | '.join(cells)} |")
    labels = world.reader.observe(world.texts["normal"]).labels
    for name, label in (("billing", 0), ("technical", 2)):
        mine = world.places["normal"][labels == label]
        for points in (0.02, 0.05, 0.10, 0.25):
            # So many texts are replaced that the label's share rises by as many points.
            share = points / (1 - float((labels == label).mean()))
            found = [str(delays(world, level, *mixed(world, mine, share))) for level in ("input", "output")]
            say(f"label mix, {name} +{points:.0%}: input {found[0]}, output {found[1]}")
    for temperature in (0.5, 0.7, 1.2, 2.0):
        wrong = world.reader.observe(world.texts["normal"], temperature * world.reader.temperature)
        places = bins(world.profile, wrong, world.texts["normal"].true)
        say(f"temperature x {temperature}: output {delays(world, 'output', *mixed(world, places, 1.0))}")
    ramp = ramped(world, world.places["live chat"], 0.25, 20_000)
    say(f"ramp, live chat from 0 to 25 % over 20,000 texts: input {delays(world, 'input', *ramp)}")
    for block in (1, 4, 16, 64):
        cells = [str(delays(world, "input", *mixed(world, world.places["live chat"], share), block=block)) for share in SHARES[:3]]
        say(f"blocks of {block}: live chat 50 / 25 / 10 %: {' / '.join(cells)}")


def frontier(world: World) -> None:
    """What delay costs what false alarms, at the input: by what is promised. Rows as those of `benchmarks.drift_peers`."""
    changes = [("live chat", share) for share in SHARES[:4]] + [("Stack Exchange", share) for share in SHARES[:4]]
    changes += [("typing errors 8 %", 0.5), ("HTML around", 0.25)]
    say(f"| peer | false alarms in 10^6 texts | {' | '.join(f'{kind} {share:.0%}' for kind, share in changes)} |")
    normal = world.places["normal"]
    for name, days in (
        ("an hour", 1 / 24),
        ("six hours", 0.25),
        ("a day", 1.0),
        ("a week", 7.0),
        ("a month", 30.0),
        ("a year", 365.0),
    ):
        still = delays(
            world, "input", normal, lambda rng, streams, texts: rng.integers(len(normal), size=(streams, texts)),
            streams=400, most=5_000, promised=days * 1440,
        )  # fmt: skip
        # Until their first alarm, or to their end.
        seen = float(np.minimum(still.texts, still.most).sum())
        cells = [
            f"{np.quantile(delays(world, 'input', *mixed(world, world.places[kind], share), promised=days * 1440).texts, 0.5):,.0f}"
            for kind, share in changes
        ]
        say(f"| promised: one in {name} | {np.isfinite(still.texts).sum() / seen * 1e6:,.1f} | {' | '.join(cells)} |")


def ramped(world: World, other: Indices, share: float, over: int) -> tuple[Indices, Chooser]:
    """As `mixed`, with a share that grows from 0 over so many texts."""
    places, _ = mixed(world, other, share)
    normal = len(world.places["normal"])
    seen = {0: 0}

    def choose(rng: np.random.Generator, streams: int, texts: int) -> Indices:
        # A generator is one baseline's, and counts its texts.
        seen[id(rng)] = seen.get(id(rng), 0) + texts
        now = share * min(seen[id(rng)] / over, 1)
        strange = normal + rng.integers(len(other), size=(streams, texts))
        return np.where(rng.random((streams, texts)) < now, strange, rng.integers(normal, size=(streams, texts)))

    return places, choose


def references(world: World) -> None:
    """Delays by the size of the baseline: what limits them."""
    say(f"| baseline | change | {' | '.join(f'{share:.0%}' for share in SHARES)} |")
    for reference in (1_000, 4_000, 20_000, 100_000):
        for kind in ("live chat", "Stack Exchange", "typing errors 8 %"):
            cells = [
                str(delays(world, "input", *mixed(world, world.places[kind], share), reference=reference, streams=40))
                for share in SHARES
            ]
            say(f"| {reference:,} | {kind} | {' | '.join(cells)} |")


def tell_outcome(world: World) -> None:
    """Labels needed until more errors are proven, with 2 points tolerated; each text is one labelled at random."""
    right = world.texts["normal"].true == world.reader.observe(world.texts["normal"]).labels
    good, bad = (world.places["normal"][right == which] for which in (True, False))
    places = np.concatenate([good, bad])

    def choose(error: float) -> Chooser:
        return lambda rng, streams, texts: np.where(
            rng.random((streams, texts)) < error,
            len(good) + rng.integers(len(bad), size=(streams, texts)),
            rng.integers(len(good), size=(streams, texts)),
        )

    for error in (0.08, 0.10, 0.15, 0.20, 0.33):
        for reference in (1_267, 20_000):
            found = delays(world, "outcome", places, choose(error), reference=reference, block=1, most=10_000)
            say(f"error from {1 - right.mean():.3f} to {error:.2f}, {reference:,} labelled before: {found} labels")


class Senders:
    """Who sends what in a week: sources swing by 80 % over the day, and a tenth of the texts are copies from a hot set of 20.

    A copy counts once in `remembered` minutes; what is not counted has no bins.
    """

    def __init__(self, world: World, streams: int, remembered: int, a_minute: float = 3.0) -> None:
        sources = np.array(world.texts["normal"].sources)
        names = sorted(set(sources.tolist()))
        self._groups = [np.flatnonzero(sources == name) for name in names]
        self._usual = np.array([len(group) for group in self._groups]) / len(sources)
        self._phases = 2 * np.pi * np.arange(len(names)) / len(names)
        self._other = len(world.places["live chat"])
        nothing = np.full((1, world.places["normal"].shape[1]), world.width)
        self.places = np.concatenate([world.places["normal"], world.places["live chat"], nothing])
        self._normal = len(world.normal)
        self._streams, self._remembered, self._a_minute = streams, remembered, a_minute
        self._seen = np.zeros((streams, HOT), dtype=bool)

    def rate(self, minute: int) -> int:
        """Texts in this minute: more by day."""
        return max(1, round(self._a_minute * (1 + 0.7 * math.sin(2 * math.pi * (minute / 1440 - 0.3)))))

    def send(self, rng: np.random.Generator, minute: int, texts: int, share: float = 0.0, *, storm: bool = False) -> Indices:
        """Texts of a minute, [streams, texts], with this share of live chat; in a storm, one text comes again and again."""
        weights = self._usual * (1 + 0.8 * np.sin(2 * np.pi * (minute / 1440) + self._phases))
        shape = self._streams, texts
        kinds = rng.choice(len(weights), p=weights / weights.sum(), size=shape)
        picks = np.empty(shape, dtype=np.int64)
        for kind, group in enumerate(self._groups):
            picks[kinds == kind] = group[rng.integers(len(group), size=int((kinds == kind).sum()))]
        copies = np.where(rng.random(shape) < 0.1, (rng.zipf(1.5, size=shape) - 1) % HOT, -1)
        if storm:
            copies[:, 0] = 7
        strange = rng.random(shape) < share
        picks[strange] = self._normal + rng.integers(self._other, size=int(strange.sum()))
        if minute % self._remembered == 0:
            self._seen[:] = False
        for column in range(texts):
            rows = np.flatnonzero((copies[:, column] >= 0) & ~strange[:, column])
            copy = copies[rows, column]
            picks[rows, column] = np.where(self._seen[rows, copy], len(self.places) - 1, copy)
            self._seen[rows, copy] = True
        return picks


def weeks(world: World, number: int = 200) -> None:
    """Weeks in which nothing changes but the hour, with one hour of ten times the traffic, a storm of one text, 2,000 texts of one
    source within one minute, and ten minutes without a server, which goes on from its state. All texts have feedback.

    The baseline is one such week without the hour, the storm and the burst. Further runs mix live chat in from Wednesday on, do
    without strata, and count copies once a minute instead of once an hour.
    """

    def baseline(seed: int, strata: int, remembered: int) -> Baseline:
        rng, senders = np.random.default_rng(seed), Senders(world, 1, remembered)
        counts = np.zeros((strata, world.width), dtype=np.int64)
        for minute in range(WEEK):
            picks = senders.send(rng, minute, senders.rate(minute))
            counts[minute // 60 % 24 * strata // 24] += world.count(senders.places, picks)[0]
        return Baseline(world.profile.layout, counts)

    for strata, remembered, runs in (
        (24, 60, ((0.0, number), (0.25, 40), (0.10, 40))), (1, 60, ((0.0, 40), (0.25, 40))), (24, 1, ((0.0, 40),)),
    ):  # fmt: skip
        baselines = [baseline(seed, strata, remembered) for seed in range(BASELINES)]
        for share, streams in runs:
            alarms: list[float] = []
            for seed, each in enumerate(baselines):
                senders = Senders(world, streams // BASELINES, remembered)
                alarms += one_week(world, each, senders, np.random.default_rng(100 + seed), streams // BASELINES, share)
            found = Delays(np.array(alarms), WEEK)
            text = f"{np.isfinite(found.texts).sum()} of {len(alarms)} weeks with an alarm"
            text += f", after {found} texts" if share else ""
            say(f"weeks, {strata} strata, copies once in {remembered} minutes, live chat {share:.0%}: {text}")


def one_week(
    world: World, baseline: Baseline, senders: Senders, rng: np.random.Generator, streams: int, share: float
) -> list[float]:
    """The first alarm of any level of each stream, in texts since the change (or the start)."""
    detectors = [Detector(baseline, level, blocks=YEAR, tolerance=TOLERANCE.get(level, 0.0)) for level in LEVELS]
    log_ms = [np.full((streams, len(detector.ceilings)), -np.inf) for detector in detectors]
    first, texts, change = np.full(streams, np.inf), 0, 2 * 1440 if share else 0
    for minute in range(WEEK):
        number = senders.rate(minute) * (10 if 5 * 1440 < minute < 5 * 1440 + 60 else 1)
        storm = 4 * 1440 < minute < 4 * 1440 + 30
        picks = senders.send(rng, minute, number, share if minute >= change else 0.0, storm=storm)
        counts = world.count(senders.places, picks)
        if minute == 3 * 1440:
            counts = counts + world.count(senders.places, rng.integers(300, size=(streams, 2000)))
        if 6 * 1440 < minute < 6 * 1440 + 10:
            counts, number = counts * 0, 0  # the restart
        stratum = minute // 60 % 24 * baseline.strata // 24
        for index, detector in enumerate(detectors):
            moved = advance(log_ms[index], detector.experts.evidence(counts, stratum, detector.cap))
            log_ms[index] = np.minimum(moved, detector.ceilings)
            alarms = (detector.experts.mean(log_ms[index]) >= detector.threshold) & np.isinf(first)
            # An alarm before the change is a false one: at 0 texts.
            first[alarms] = texts + number if minute >= change else 0
        texts += number if minute >= change else 0
        if np.isfinite(first).all():
            break
    return first.tolist()


def accuracy(world: World) -> None:
    """The estimated accuracy of each kind, its error, and that of the mean confidence (CBPE)."""
    rows = []
    for kind, texts in world.texts.items():
        seen = world.reader.observe(texts)
        truth, naive = float((seen.labels == texts.true).mean()), float(seen.confidence.mean())
        estimate = 1 - float(world.profile.scores(seen)["error"].mean())
        rows.append((kind, truth, estimate, naive))
        say(f"| {kind} | {truth:.3f} | {estimate:.3f} | {naive:.3f} |")
    figures = np.array([row[1:] for row in rows if row[0] != "normal"])
    for share in (1.0, 0.5, 0.25, 0.1):
        # Of a mixed stream, truth and estimates are mixed, too.
        streams = share * figures + (1 - share) * np.array(rows[-1][1:] if rows[-1][0] == "normal" else rows[0][1:])
        off = np.abs(streams[:, 1:] - streams[:, :1]).mean(axis=0)
        say(f"mean absolute error at {share:.0%}: estimate {off[0]:.3f}, confidence {off[1]:.3f}")


def words(world: World, streams: int = 200) -> None:
    """How often a planted word is among the ten shown, after an hour of 16 texts a minute with one of its kind in ten."""
    reader, normal, planted = world.reader, world.texts["normal"], world.texts["new products"]
    before = count_words(normal.ids, reader.vocabulary)
    wanted = {piece for product in PRODUCTS for piece in reader.pieces_of(product)}
    holding = {product: set(reader.pieces_of(product)) for product in PRODUCTS}
    rng, hits, clean = np.random.default_rng(0), 0, 0
    for stream in range(streams):
        product = PRODUCTS[stream % len(PRODUCTS)]
        with_it = [ids for ids in planted.ids if holding[product] <= {reader.pieces[token] for token in ids}]
        hour = rng.random(960) < 0.1
        now = [(with_it if each else normal.ids)[rng.integers(len(with_it if each else normal.ids))] for each in hour]
        up, _ = changed_words(count_words(now, reader.vocabulary), before, len(now), len(normal), reader.pieces)
        shown = {word.text for word in up}
        hits += bool(shown & holding[product])
        clean += not shown - wanted
    say(f"planted words, 10 % of 960 texts: among the ten shown in {hits / streams:.1%}; nothing else in {clean / streams:.1%}")


def cost(world: World) -> None:
    """Microseconds a text, in batches as passes have them, and a block's decision; bytes of files."""
    seen = world.reader.observe(world.texts["normal"])
    for size in (1, 32, 256):
        first = world.texts["normal"].first[:size]
        few = Observations(seen.ids[:size], seen.labels[:size], seen.confidence[:size], first)
        times = []
        for _ in range(200):
            started = time.perf_counter()
            world.profile.layout.count(world.profile.channels(few))
            times.append(time.perf_counter() - started)
        say(f"measuring and counting {size} texts: {min(times) / size * 1e6:.1f} us a text, at best")
    monitor = Monitor(world.profile.layout, world.baseline(REFERENCE, 0))
    counts = world.count(world.places["normal"], np.arange(BLOCK)[None])[0]
    times = []
    for _ in range(300):
        started = time.perf_counter()
        monitor.advance(counts)
        times.append(time.perf_counter() - started)
    usual, slow = np.quantile(times, (0.5, 0.99)) * 1e3
    say(f"a block's decision, all levels: {usual:.2f} ms; 1 in 100 takes more than {slow:.2f} ms")
    say(f"profile {len(world.profile.to_bytes()):,} bytes, baseline {len(world.baseline(REFERENCE, 0).to_bytes()):,} bytes")


PARTS: Final[dict[str, Callable[[World], None]]] = {
    "separation": separation,
    "stationary": stationary,
    "delays": tell_delays,
    "references": references,
    "frontier": frontier,
    "outcome": tell_outcome,
    "weeks": weeks,
    "accuracy": accuracy,
    "words": words,
    "cost": cost,
}


def write_scores(world: World, path: Path) -> None:
    """For `benchmarks.drift_peers`: what peers get to see of each kind of text, numbers alone."""
    arrays: dict[str, npt.NDArray[np.float64]] = {}
    for kind, texts in world.texts.items():
        seen = world.reader.observe(texts)
        scores = world.profile.scores(seen)
        columns = [scores["novelty"], scores["pairs"], scores["combined"], seen.confidence, seen.labels.astype(np.float64)]
        arrays[kind] = np.stack(columns, axis=1)
        arrays[f"first of {kind}"] = texts.first.astype(np.float64)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def main(data: Path, parts: Sequence[str], peers: Path | None) -> None:
    """Run the parts."""
    world = make_world(data)
    say(f"{world.reader.name}; profile of {len(world.profile.to_bytes()):,} bytes; {len(world.normal):,} texts are normal")
    for name in parts or PARTS:
        say(f"\n# {name}")
        PARTS[name](world)
    if peers:
        write_scores(world, peers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS])
    parser.add_argument("--peers", type=Path, help="write the scores of all texts to this .npz")
    arguments = parser.parse_args()
    main(arguments.data, arguments.parts, arguments.peers)
