"""`python drift_peers.py SCORES [PEERS...]`: other detectors on the streams of `benchmarks.drift`, in environments of their own.

SCORES is what `python -m benchmarks.drift DATA --peers SCORES` wrote: numbers of each text, no text. This file imports nothing of
the project, since the peers' pins do not fit beside it: each has an environment of its own with `pip install river==0.26.1`, or
`evidently==0.7.23 "pandas<3"`, or `nannyml==0.13.1 statsmodels`, or `alibi-detect==0.13.0` (its licence allows measuring, and no
production). PEERS are of `dummy`, `folklore`, `river`, `evidently`, `mmd`, `nannyml`, `alibi`; the first two by default, which need
numpy alone.

Each peer runs with the threshold that its documentation has, and with stricter ones up to the one at which it is silent in the
stationary streams (`calibrated`). All get the strongest score that there is here (`combined`), besides confidence and labels, which
are what they would be given otherwise. `alarm every n` is no detector at all: what it finds, and how soon, shows what a peer's
alarms are worth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

COLUMNS: Final = ("novelty", "pairs", "combined", "confidence", "label")
CHANGES: Final = (
    ("live chat", 0.5), ("live chat", 0.25), ("live chat", 0.1), ("live chat", 0.05),
    ("Stack Exchange", 0.5), ("Stack Exchange", 0.25), ("Stack Exchange", 0.1), ("Stack Exchange", 0.05),
    ("typing errors 8 %", 0.5), ("HTML around", 0.25),
)  # fmt: skip
REFERENCE: Final = 20_000
STATIONARY: Final = 2_000_000
MOST: Final = 20_000
STREAMS: Final = 20
PASS: Final = 200_000
RATES: Final = (0.1, 0.01, 0.002)  # of alarms in a peer's windows


class Streams:
    """Texts as rows of numbers, drawn as `benchmarks.drift` draws them."""

    def __init__(self, scores: Path) -> None:
        with np.load(scores) as found:
            self.rows: dict[str, Array] = {name: found[name] for name in found.files}
        self.reference = self.normal(np.random.default_rng(0), REFERENCE)

    def normal(self, rng: np.random.Generator, texts: int) -> Array:
        """Rows of normal texts."""
        rows = self.rows["normal"]
        return np.asarray(rows[rng.integers(len(rows), size=texts)])

    def changed(self, kind: str, share: float, rng: np.random.Generator, texts: int) -> Array:
        """Rows of a stream in which this share is of another kind."""
        other = self.rows[kind]
        strange = other[rng.integers(len(other), size=texts)]
        return np.where(rng.random((texts, 1)) < share, strange, self.normal(rng, texts))

    def stationary(self) -> Iterator[Array]:
        """Normal rows, in passes."""
        rng = np.random.default_rng(1)
        for _ in range(STATIONARY // PASS):
            yield self.normal(rng, PASS)


def show(line: str) -> None:
    """A line of results."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def told(delays: list[float], most: int = MOST) -> str:
    """The median delay, or how often there was an alarm."""
    found = np.isfinite(delays)
    if found.mean() < 0.5:
        return f"{found.mean():.0%} of {most:,}"
    return f"{np.quantile(delays, 0.5, method='higher'):,.0f}"


def windows(streams: Streams, name: str, statistic: Callable[[Array], float], size: int, documented: float) -> None:
    """A peer that looks at windows, and alarms when a statistic is above a threshold."""
    still = np.array([statistic(rows[k : k + size]) for rows in streams.stationary() for k in range(0, PASS - size + 1, size)])
    thresholds = [
        ("as documented", documented),
        *((f"{share:.1%} of windows", float(np.quantile(still, 1 - share))) for share in RATES),
    ]
    for which, threshold in (*thresholds, ("calibrated", float(still.max()))):
        alarms = float((still > threshold).mean()) / size * 1e6
        cells = []
        for kind, share in CHANGES:
            delays = []
            for stream in range(STREAMS):
                rows = streams.changed(kind, share, np.random.default_rng(100 + stream), MOST)
                ends = (k + size for k in range(0, MOST - size + 1, size) if statistic(rows[k : k + size]) > threshold)
                delays.append(float(next(ends, np.inf)))
            cells.append(told(delays))
        show(f"| {name}, {size} texts, {which} ({threshold:.3g}) | {alarms:,.1f} | {' | '.join(cells)} |")


def online(streams: Streams, name: str, column: str, make: Callable[[float], Any], settings: tuple[float, ...]) -> None:
    """A peer that takes one text at a time; the first setting is the documented one, the others are tried until all is silent."""
    place = COLUMNS.index(column)
    for number, setting in enumerate(settings):
        detector, alarms = make(setting), 0
        for rows in streams.stationary():
            for value in rows[:, place].tolist():
                detector.update(value)
                alarms += detector.drift_detected
        cells = []
        for kind, share in CHANGES:
            changed = [streams.changed(kind, share, np.random.default_rng(100 + stream), MOST) for stream in range(STREAMS)]
            cells.append(told([_delay(make(setting), streams.reference[:, place], rows[:, place]) for rows in changed]))
        which = "as documented" if not number else "stricter" if alarms else "calibrated"
        show(f"| {name} on {column}, {which} ({setting:g}) | {alarms / STATIONARY * 1e6:,.1f} | {' | '.join(cells)} |")
        if number and not alarms:
            break


def _delay(detector: Any, reference: Array, values: Array) -> float:  # noqa: ANN401 - a peer's detectors share no type
    for value in reference.tolist():
        detector.update(value)
    for index, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            return index + 1.0
    return float(np.inf)


def with_river(streams: Streams) -> None:
    """ADWIN, Page-Hinkley."""
    from river import drift

    for column in ("combined", "confidence"):
        online(streams, "river ADWIN", column, lambda delta: drift.ADWIN(delta=delta), (0.002, 1e-4, 1e-6, 1e-8, 1e-10, 1e-13))
        online(
            streams,
            "river Page-Hinkley",
            column,
            lambda level: drift.PageHinkley(threshold=level),
            (50, 200, 500, 1000, 3000, 10000),
        )


def with_evidently(streams: Streams) -> None:
    """The default tests for numbers and for categories, and the two for embeddings."""
    import pandas as pd
    from evidently.legacy.calculations.stattests import jensenshannon_stat_test, wasserstein_stat_test
    from evidently.legacy.core import ColumnType

    for column, test, kind in (
        ("combined", wasserstein_stat_test, ColumnType.Numerical),
        ("confidence", wasserstein_stat_test, ColumnType.Numerical),
        ("label", jensenshannon_stat_test, ColumnType.Categorical),
    ):
        place = COLUMNS.index(column)
        reference = pd.Series(streams.reference[:, place])

        score = partial(_evidently_score, test, kind, reference, place)
        windows(streams, f"evidently {test.display_name} of {column}", score, 500, 0.1)


def _evidently_score(test: Any, kind: Any, reference: Any, place: int, rows: Array) -> float:  # noqa: ANN401
    return float(test.func(reference, type(reference)(rows[:, place]), kind, 0.1)[0])


def with_evidently_mmd(streams: Streams, pairs: int = 20) -> None:
    """How often MMD of embeddings with its bootstrap calls two halves of the same texts drift."""
    import pandas as pd
    from evidently.legacy.metrics.data_drift.embedding_drift_methods import mmd

    rng, first = np.random.default_rng(0), streams.rows["first of normal"]
    for quantile in (0.05, 0.95):
        test = mmd(bootstrap=True, quantile_probability=quantile)
        alarms = 0
        for _ in range(pairs):
            order = rng.permutation(len(first))[:600]
            alarms += bool(test(pd.DataFrame(first[order[:300]]), pd.DataFrame(first[order[300:]]))[1])
        show(f"evidently MMD with bootstrap, quantile {quantile}: drift in {alarms} of {pairs} stationary pairs of 300")


def with_nannyml(streams: Streams) -> None:
    """Distances of chunks, which alarm beyond three standard deviations of the reference's chunks."""
    import pandas as pd
    from nannyml.chunk import SizeBasedChunker
    from nannyml.drift.univariate.methods import FeatureType, MethodFactory
    from nannyml.thresholds import StandardDeviationThreshold

    for column in ("combined", "confidence"):
        place = COLUMNS.index(column)
        for key in ("jensen_shannon", "wasserstein"):
            method = MethodFactory.create(
                key=key, feature_type=FeatureType.CONTINUOUS, chunker=SizeBasedChunker(500), threshold=StandardDeviationThreshold()
            )
            series = partial(pd.Series, name=column)
            method.fit(series(streams.reference[:, place]))
            score = partial(_nannyml_score, method, series, place)
            windows(streams, f"NannyML {key} of {column}", score, 500, float(method.upper_threshold_value))


def _nannyml_score(method: Any, series: Any, place: int, rows: Array) -> float:  # noqa: ANN401
    return float(method.calculate(series(rows[:, place])))


def with_alibi(streams: Streams, reference: int = 2_000, texts: int = 20_000, most: int = 5_000) -> None:
    """The online test of Cramer and von Mises, for an expected run of 1,000 texts.

    It needs half a millisecond a text, and with a reference of 20,000 texts 24 GiB of memory: so fewer texts of all.
    """
    from alibi_detect.cd import CVMDriftOnline

    place, run = COLUMNS.index("combined"), 1_000
    values = streams.reference[:reference, place].astype(np.float32)
    detector = CVMDriftOnline(values, ert=run, window_sizes=[20, 80], n_bootstraps=4_000, verbose=False)

    def alarms(rows: Array) -> Iterator[int]:
        detector.reset_state()
        for number, value in enumerate(rows[:, place].astype(np.float32), start=1):
            if detector.predict(np.array([value]))["data"]["is_drift"]:
                yield number
                detector.reset_state()

    false = sum(1 for _ in alarms(streams.normal(np.random.default_rng(1), texts)))
    cells = []
    for kind, share in CHANGES:
        changed = (streams.changed(kind, share, np.random.default_rng(100 + stream), most) for stream in range(STREAMS // 2))
        cells.append(told([float(next(alarms(rows), np.inf)) for rows in changed], most))
    show(f"| alibi-detect CVM on combined, one in {run:,} texts | {false / texts * 1e6:,.1f} | {' | '.join(cells)} |")


def folklore(streams: Streams) -> None:
    """PSI over ten bins, and the distance between mean vectors, without any package."""
    place = COLUMNS.index("confidence")
    edges = np.quantile(streams.reference[:, place], np.arange(1, 10) / 10)
    expected = np.bincount(np.searchsorted(edges, streams.reference[:, place]), minlength=10) / REFERENCE

    def psi(rows: Array) -> float:
        found = np.maximum(np.bincount(np.searchsorted(edges, rows[:, place]), minlength=10) / len(rows), 1e-4)
        return float(((found - expected) * np.log(found / expected)).sum())

    for size in (500, 1000):
        windows(streams, "PSI of confidence", psi, size, 0.1)


def dummy(streams: Streams) -> None:
    """Alarms every n texts, whatever they are."""
    del streams
    for n in (500, 10_000, 1_000_000):
        show(f"| alarm every {n:,} texts | {1e6 / n:,.1f} | {' | '.join([f'{n / 2:,.0f}'] * len(CHANGES))} |")


PEERS: Final[dict[str, Callable[[Streams], None]]] = {
    "dummy": dummy,
    "folklore": folklore,
    "river": with_river,
    "evidently": with_evidently,
    "mmd": with_evidently_mmd,
    "nannyml": with_nannyml,
    "alibi": with_alibi,
}


def main(scores: Path, names: list[str]) -> None:
    """The peers by name."""
    streams = Streams(scores)
    show(f"| peer | false alarms in 10^6 texts | {' | '.join(f'{kind} {share:.0%}' for kind, share in CHANGES)} |")
    for name in names or ["dummy", "folklore"]:
        PEERS[name](streams)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
