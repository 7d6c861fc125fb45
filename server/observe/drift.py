"""Drift detection in the server: what was answered becomes counts, a minute of them a block, and each block moves the verdicts.

Theory of operation. On the event loop, an answered text costs a look at whether it came before within the hour, and a place in a
list. Once a second the list goes to a thread, which scores the texts in one go, counts them by their block, and gives the monitor
every block that is over. `drift` has the statistics, and docs/drift.md the theory.

1. Only interactive texts that went through the model are counted, each once an hour: bulk jobs, answers from the cache and
   repetitions say nothing of what people ask.
2. At most `MOST_PENDING` texts wait for the thread. What comes beyond is counted as missed, and nowhere else.
3. All statistics are touched in one thread at a time. What the event loop tells at `/metrics` is what the thread left behind at
   the end of its last turn, and is never changed afterwards.
4. The state file is written as a whole, after each block and at the end. One that does not fit, because the model or the baseline
   is another, is set aside as `FILE.old`.
5. The prediction log has the bins of each text that is counted here, under the same time, so that the log makes the same blocks.

No text is kept: of a text there are token ids until it is scored, and characters outside ASCII to find the script.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import structlog

from drift import (
    Baseline,
    BaselineError,
    Counts,
    Layout,
    LevelName,
    Monitor,
    Observations,
    Profile,
    ProfileError,
    Promise,
    Recent,
    Repeats,
    State,
    Timeline,
    Verdict,
    block_of,
    foreign_share,
    outcome_values,
)
from drift.profile import USUAL
from models.types import Prediction
from server.observe.drift_report import WordCounts, accuracy_of, report_of
from server.observe.feedback import Labelled

log = structlog.stdlib.get_logger("supportbot.drift")

STRATA: Final = 24
HAND_OVER_SECONDS: Final = 1.0
MOST_PENDING: Final = 20_000
# Scored in one go, which holds the interpreter for some 0.5 ms.
BATCH: Final = 256
# What the report says of the present rests on so much of the past.
RECENT_SECONDS: Final = 3600.0
MOST_EXAMPLES: Final = 10
# Texts after which it is said once how far they are from those that the model was checked on.
FEWEST_COMPARED: Final = 500


class DriftError(Exception):
    """Raised when drift detection cannot work, at start or when the present is to be accepted; the message says why."""


@dataclass(slots=True, eq=False)
class Seen:
    """An answered text that is counted: when, as seconds since 1970, and what is known of it. `odd` are its characters if some are
    not ASCII; `bins` are its bins, shape [channels], and `combined` is its score, once they are known.
    """

    time: float
    request_id: str
    ids: tuple[int, ...]
    label: int
    confidence: float
    first: npt.NDArray[np.floating[Any]] | None
    odd: str
    bins: npt.NDArray[np.int64] | None = None
    combined: float = 0.0


@dataclass(frozen=True, slots=True)
class DriftCounts:
    """What the metrics tell: texts since the start by what became of them; each level's state and its evidence, from 0 to 1; the
    texts of the baseline; and the estimated accuracy in the last hour, None without texts.
    """

    texts: Mapping[str, int]
    levels: Mapping[LevelName, tuple[State, float]]
    baseline_texts: int
    accuracy: float | None
    saves: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DriftOptions:
    """How to watch. Without a `baseline`, one is learned from so many texts over so many days. `state` is the file to keep, None
    for none.
    """

    block_seconds: float = 60.0
    promise_days: float = 365.0
    learn_texts: int = 20_000
    learn_days: float = 7.0
    baseline: Baseline | None = None
    state: Path | None = None


def read_profile(content: bytes, labels: Sequence[str], vocabulary: int, first_width: int | None) -> Profile:
    """A bundle's profile. Raises `DriftError` when it is damaged or of another model.

    A model that gives no first-token vectors (`first_width` None) may have a profile with them: that channel then stays empty.
    """
    try:
        profile = Profile.from_bytes(content)
        profile.check_channels()
    except ProfileError as error:
        raise DriftError(f"the bundle's profile: {error}") from error
    if profile.labels != tuple(labels) or len(profile.rarity) < vocabulary:
        raise DriftError("the bundle's profile is of another model: it has other labels, or fewer words")
    if first_width is not None and len(profile.center) not in (0, first_width):
        raise DriftError(
            f"the bundle's profile is of another model: it has {len(profile.center)} dimensions where the model has {first_width}"
        )
    return profile


def read_baseline(path: Path, profile: Profile) -> Baseline:
    """The operator's own baseline. Raises `DriftError`."""
    try:
        baseline = Baseline.from_bytes(path.read_bytes())
    except OSError as error:
        raise DriftError(f"DRIFT_PROFILE={path}: {error.strerror or error}") from error
    except BaselineError as error:
        raise DriftError(f"DRIFT_PROFILE={path}: {error}") from error
    if baseline.layout.fingerprint != profile.layout.fingerprint:
        raise DriftError(f"DRIFT_PROFILE={path}: it was learned with another model")
    return baseline


def monitor_of(layout: Layout, options: DriftOptions) -> Monitor:
    """A monitor that watches as the options say."""
    promise = Promise(options.promise_days, min(30.0, options.promise_days), options.block_seconds)
    return Monitor(
        layout,
        options.baseline,
        promise=promise,
        strata=STRATA,
        learn_texts=options.learn_texts,
        learn_blocks=round(promise.blocks(options.learn_days)),
    )


class DriftWatch:
    """Watches answered texts by a profile. `pieces` are the strings of the token ids, for words in reports; `clock` gives seconds
    since 1970. To be used on one event loop.
    """

    def __init__(
        self, profile: Profile, pieces: Sequence[str], options: DriftOptions, clock: Callable[[], float] = time.time
    ) -> None:
        self.profile = profile
        self._options = options
        self._clock = clock
        self._monitor = monitor_of(profile.layout, options)
        self._recent = Recent(profile.layout, options.block_seconds)
        self._timeline = Timeline(self._monitor, self._closed)
        self._thread = ThreadPoolExecutor(1, "drift")
        self._repeats = Repeats()
        self._index = {label: number for number, label in enumerate(profile.labels)}
        # Mutable state of the event loop's side.
        self._pending: list[Seen] = []
        self._timer: asyncio.TimerHandle | None = None
        self._handed = 0
        self._open_block = 0
        self.repeated = self.missed = 0
        # Of the thread's side.
        self._is_unwritable = False
        self._saves = {"written": 0, "failed": 0}
        self._has_compared = False
        self.counted = self._failed = 0
        self._scoring = threading.Lock()  # the prediction log's thread may be the first to score a text
        self._last: deque[tuple[int, Counts]] = deque(maxlen=max(1, round(RECENT_SECONDS / options.block_seconds)))
        self._words = WordCounts(pieces, RECENT_SECONDS)
        self._examples: list[tuple[float, float, str]] = []
        self._restore()
        self._states = {level: state for level, (state, _) in self._monitor.standing().items()}
        self.told = self._tell()

    # --- on the event loop

    def start(self) -> None:
        """Begin to close blocks as time goes by."""
        self._timer = asyncio.get_running_loop().call_later(HAND_OVER_SECONDS, self._hand_over)

    def see(self, now: float, request_id: str, text: str, ids: tuple[int, ...], prediction: Prediction) -> Seen | None:
        """Count an answered text unless it is a repetition, or there are too many; what is counted is returned, for the log."""
        if not self._repeats.is_new(hash(ids), now):
            self.repeated += 1
            return None
        if self._handed + len(self._pending) - self.counted - self._failed >= MOST_PENDING:
            self.missed += 1
            return None
        odd = "" if text.isascii() else text
        seen = Seen(now, request_id, ids, self._index[prediction.label], prediction.confidence, prediction.first, odd)
        self._pending.append(seen)
        return seen

    def see_labelled(self, now: float, answers: Sequence[Labelled]) -> None:
        """Answers that were drawn for review, with their true labels; they count in the block in which the labels come."""
        self._hand_over_now()
        self._thread.submit(self._count_labelled, block_of(now, self._timeline.seconds), answers)

    def codes(self, texts: Sequence[Seen]) -> list[str]:
        """What the prediction log has of each text: its bins as a short string. May be called in any thread."""
        self._score(texts)
        return self.profile.layout.encode(np.array([text.bins for text in texts]).reshape(len(texts), -1))

    async def report(self) -> dict[str, Any]:
        """What there is to tell as of now, texts of the last second included."""
        self._hand_over_now()
        return await asyncio.wrap_future(self._thread.submit(self._report))

    async def counts(self, since: int | None) -> dict[str, Any]:
        """The counts of the closed blocks from this number on, for who adds up replicas; see `drift.Recent.tell`."""
        self._hand_over_now()
        return await asyncio.wrap_future(self._thread.submit(self._recent.tell, since))

    async def accept(self, note: str) -> int:
        """Take the present as normal; returns the texts of the new baseline. Raises `DriftError` when they are too few."""
        self._hand_over_now()
        return await asyncio.wrap_future(self._thread.submit(self._accept, note))

    async def close(self, within: float) -> None:
        """Count what is pending and write the state, in at most so many seconds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hand_over_now()
        saved = self._thread.submit(self._save)
        self._thread.shutdown(wait=False)
        await asyncio.wait((asyncio.wrap_future(saved),), timeout=within)

    def _hand_over(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(HAND_OVER_SECONDS, self._hand_over)
        if self._pending or block_of(self._clock(), self._timeline.seconds) != self._open_block:
            self._hand_over_now()

    def _hand_over_now(self) -> None:
        """All texts up to now are handed over, so all blocks up to now are whole."""
        texts, self._pending, now = self._pending, [], self._clock()
        self._handed += len(texts)
        self._open_block = block_of(now, self._timeline.seconds)
        self._thread.submit(self._take, texts, self._open_block)

    # --- in the thread

    def _take(self, texts: Sequence[Seen], open_block: int) -> None:
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            try:
                self._score(batch)
                self._count(batch)
            except Exception as error:
                self._failed += len(batch)
                log.exception("texts cannot be counted for drift detection", texts=len(batch), reason=type(error).__name__)
        self._timeline.close(open_block)
        if not self._has_compared and self.counted >= FEWEST_COMPARED:
            self._has_compared = True
            self._compare()
        self.told = self._tell()

    def _score(self, texts: Sequence[Seen]) -> None:
        """Find the bins of those texts that have none yet."""
        with self._scoring:
            texts = [text for text in texts if text.bins is None]
            if not texts:
                return
            vectors = [text.first for text in texts if text.first is not None]
            observed = Observations(
                [text.ids for text in texts],
                np.array([text.label for text in texts], dtype=np.int64),
                np.array([text.confidence for text in texts]),
                np.array(vectors) if len(vectors) == len(texts) else None,
                np.array([foreign_share(text.odd) for text in texts]),
            )
            values = self.profile.channels(observed)
            for text, bins, combined in zip(texts, self.profile.layout.bins(values), values["combined"].tolist(), strict=True):
                text.bins, text.combined = bins, combined
                text.first, text.odd = None, ""

    def _count(self, texts: Sequence[Seen]) -> None:
        seconds = self._timeline.seconds
        bins = np.array([text.bins for text in texts])
        numbers = np.array([block_of(text.time, seconds) for text in texts])
        for number in np.unique(numbers).tolist():
            self._timeline.add(number, self.profile.layout.count_bins(bins[numbers == number]))
        self._words.add(texts[-1].time, [text.ids for text in texts], keep=self._states["input"] is not State.DRIFT)
        newest = texts[-1].time - RECENT_SECONDS
        found = [example for example in self._examples if example[1] >= newest]
        found += [(text.combined, text.time, text.request_id) for text in texts]
        self._examples = heapq.nlargest(MOST_EXAMPLES, found)
        self.counted += len(texts)

    def _count_labelled(self, number: int, answers: Sequence[Labelled]) -> None:
        predicted, true = (np.array(side, dtype=np.int64) for side in ([a.predicted for a in answers], [a.true for a in answers]))
        values = outcome_values(self.profile.labels, predicted, true, np.array([answer.confidence for answer in answers]))
        self._timeline.add(number, self.profile.layout.count(values))
        self.told = self._tell()

    def _closed(self, number: int, counts: Counts) -> None:
        """The monitor has taken in a block."""
        self._recent.add(number, counts)
        self._last.append((number, counts))
        for level, (state, _) in self._monitor.standing().items():
            if state is not (before := self._states[level]):
                self._states[level] = state
                _log_change(self._monitor.verdicts()[level], before)
        self._save()

    def _compare(self) -> None:
        """Say once how far the first texts are from those that the model was checked on."""
        recent = self._sum()
        unusual, accuracy = self.profile.unusual_share(recent), accuracy_of(self.profile.layout, recent)
        facts = {name: None if value is None else round(value, 4) for name, value in (("unusual", unusual), ("accuracy", accuracy))}
        log.info("texts compared with those that the model was checked on", texts=self.counted, **facts, usual=round(1 - USUAL, 2))

    def _tell(self) -> DriftCounts:
        baseline = self._monitor.baseline
        return DriftCounts(
            texts={"counted": self.counted, "repeated": self.repeated, "missed": self.missed, "failed": self._failed},
            levels=self._monitor.standing(),
            baseline_texts=baseline.texts if baseline else 0,
            saves=dict(self._saves),
            accuracy=accuracy_of(self.profile.layout, self._sum()),
        )

    def _sum(self) -> Counts:
        """The counts of the last hour, the open block's included."""
        return np.sum([counts for _, counts in self._last], axis=0, dtype=np.int64) + self._timeline.counts

    def _report(self) -> dict[str, Any]:
        return report_of(self.profile, self._timeline, self._sum(), self._words, [request for _, _, request in self._examples])

    def _accept(self, note: str) -> int:
        try:
            accepted = self._monitor.accept(note)
        except BaselineError as error:
            raise DriftError(str(error)) from error
        log.warning("drift: the present is accepted as normal", texts=accepted.texts, note=note)
        self._states = {level: state for level, (state, _) in self._monitor.standing().items()}
        self.told = self._tell()
        self._save()
        return accepted.texts

    def _key(self) -> dict[str, str]:
        """What a state must fit to."""
        baseline = self._options.baseline
        given = hashlib.sha256(baseline.to_bytes()).hexdigest() if baseline else ""
        return {"layout": self.profile.layout.fingerprint, "baseline": given}

    def _save(self) -> None:
        path = self._options.state
        if path is None:
            return
        temporary = path.with_name(path.name + ".tmp")
        try:
            temporary.write_bytes(orjson.dumps(self._key() | self._timeline.save()))
            temporary.replace(path)
        except OSError as error:
            self._saves["failed"] += 1
            if not self._is_unwritable:
                log.error(  # noqa: TRY400 - the reason is the disk's
                    "the state of drift detection cannot be written", path=str(path), reason=error.strerror
                )
            self._is_unwritable = True
        else:
            self._saves["written"] += 1
            self._is_unwritable = False

    def _restore(self) -> None:
        """Go on from the state file, if there is one that fits. Raises `DriftError` when it cannot be read or written."""
        path = self._options.state
        if path is None:
            return
        if not path.absolute().parent.is_dir():
            raise DriftError(f"DRIFT_STATE={path}: there is no folder {path.absolute().parent}")
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise DriftError(f"DRIFT_STATE={path}: {error.strerror or error}") from error
        try:
            self._timeline.restore(self._fitting(orjson.loads(content)))
        except (BaselineError, orjson.JSONDecodeError) as error:
            aside = path.with_name(path.name + ".old")
            path.replace(aside)
            log.warning("the state of drift detection does not fit and is set aside", path=str(aside), reason=str(error))

    def _fitting(self, saved: object) -> Mapping[str, Any]:
        """What was saved, if it is of this model and this baseline. Raises `BaselineError`."""
        if not isinstance(saved, dict) or any(saved.get(name) != value for name, value in self._key().items()):
            raise BaselineError("it is of another model, or of another DRIFT_PROFILE")
        return saved


def _log_change(verdict: Verdict, before: State) -> None:
    say = log.warning if verdict.state in {State.DRIFT, State.WATCH} else log.info
    shift = None if verdict.shift is None else round(verdict.shift.share, 4)
    say("drift", level=verdict.level, state=str(verdict.state), before=str(before), where=verdict.where, moved_share=shift)
