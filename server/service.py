"""The service behind the routes: the model, the batcher, and the one place where they meet."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from time import perf_counter, time
from types import TracebackType
from typing import Self

import anyio.to_thread
import structlog

from batching import (
    Batcher,
    BatcherStatistics,
    BatchingError,
    DeadlineExceeded,
    PassEnd,
    PassFailed,
    PassReport,
    Priority,
    Reservation,
)
from batching import Outcome as BatchOutcome
from machine.cores import bounded_cores
from models.markup import is_html, plain_text
from models.types import BlankTextError, Encoding, Prediction, TextClassifier
from models.windows import Windows
from server.cache import AnswerCache, CachedAnswer
from server.goldens import GoldenChecks
from server.observe.confidence import Confidence
from server.observe.drift import DriftError, DriftWatch, read_baseline, read_profile
from server.observe.feedback import Feedback, Item, Outcome
from server.observe.lengths import LengthReport, LengthStatistics, from_prediction_log
from server.observe.metrics import Metrics, ModelState, ServiceState
from server.observe.values import Values
from server.readiness import NotReady, Phase, Readiness
from server.request import ClassifyRequest, blank_text, too_long_text
from server.settings import Settings
from server.threads import PassThreads

log = structlog.stdlib.get_logger("supportbot.service")

# Texts up to this many characters together are tokenized on the event loop, where 2,000 characters take about 0.6 ms; handing less
# than that to a thread costs more than it saves.
TOKENIZE_INLINE_CHARACTERS = 2_000
# How long the end of the process waits for the disk.
PREDICTION_LOG_CLOSING_SECONDS = 2.0
DRIFT_CLOSING_SECONDS = 2.0


@dataclass(slots=True)
class Timing:
    """Where a request's time went, in seconds. `queue` and `inference` are those of its slowest text."""

    tokenize: float
    queue: float
    inference: float


@dataclass(slots=True)  # not frozen: that takes several times as long to make, as for all that is made for each request
class Classification:
    """The answer to one request, in the order of its texts; `encodings` are None for those from the cache. Of texts that are
    `stripped`, which were HTML, what a person sees was classified. `tokens` are how many were classified of each text, in
    so many `windows`; its encoding is the first one's.
    """

    predictions: list[Prediction]
    truncated: list[bool]
    encodings: list[Encoding | None]
    timing: Timing
    stripped: list[bool]
    tokens: list[int]
    windows: list[int]


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may be worked on: what the cache had for each text, the indices of the others, and places for these.

    Use it in a `with` block, at whose end unused places are given back. `deadline` is on `perf_counter`'s clock.
    """

    request: ClassifyRequest
    classifier: TextClassifier
    cached: list[CachedAnswer | None]
    missing: list[int]
    places: Reservation[Encoding, Prediction] | None
    deadline: float

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self.places is not None:
            self.places.__exit__(kind, error, traceback)


def _counts(statistics: BatcherStatistics) -> dict[str, object]:
    """The numbers for a log line; times rounded to milliseconds."""
    values = {field.name: getattr(statistics, field.name) for field in fields(statistics)}
    return {
        name: {str(key): count for key, count in value.items()} if isinstance(value, Mapping) else round(value, 3)
        for name, value in values.items()
    }


class Service:
    """Loads the model in the background, classifies while it is ready, drains when told to."""

    def __init__(
        self,
        settings: Settings,
        open_classifier: Callable[[], TextClassifier],
        on_ready: Callable[[TextClassifier], None] | None = None,
        on_failed: Callable[[], None] | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.metrics.watch(self._state)
        self.prediction_log = settings.open_prediction_log()
        # These need the model's labels and limit.
        self.confidence: Confidence | Values | None = None
        self.lengths: LengthStatistics | None = None
        # None where drift is not watched, for the reason that is said.
        self.drift: DriftWatch | None = None
        self.no_drift = "the model is not loaded yet"
        self.feedback: Feedback | None = None
        self.goldens: GoldenChecks | None = None
        self.readiness = Readiness()
        # True when a thread is still in the model although its time is up; the process must not wait for it.
        self.is_hanging = False
        self.is_drained = False
        self.cores = bounded_cores()
        self.policy = settings.batch_policy(self.cores.number)
        self.windows = settings.windows()
        self._open_classifier = open_classifier
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._delay_is_over = asyncio.Event()
        self._draining = asyncio.Event()
        # None until it is loaded; `classifier` is for work, which is refused before and after.
        self.model: TextClassifier | None = None
        self._batcher: Batcher[Encoding, Prediction] | None = None
        self._threads: PassThreads | None = None
        # Long texts are tokenized in threads, which take turns on the cores that passes need too.
        self.tokenizing = anyio.CapacityLimiter(self.cores.number)
        self._late_in_tokenizing = 0
        self._cache: AnswerCache | None = None

    @property
    def classifier(self) -> TextClassifier:
        """The model in service. Raises `NotReady` before there is one."""
        self.readiness.check()
        assert self.model is not None
        return self.model

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open everything in order, close it in the opposite order. Loading goes on in the background meanwhile."""
        async with AsyncExitStack() as stack:
            if self.prediction_log is not None:
                stack.push_async_callback(self.prediction_log.close, PREDICTION_LOG_CLOSING_SECONDS)
            self._threads = threads = PassThreads(asyncio.get_running_loop())
            stack.callback(threads.close)
            loading = asyncio.create_task(self._load(threads, stack), name="service.load")
            try:
                yield
            finally:
                self.readiness.set_draining()
                self._draining.set()
                # Nothing was accepted before the model is there, so there is nothing to wait for.
                self.is_hanging |= not loading.done()
                loading.cancel()

    def check_ready(self) -> None:
        """Raise `NotReady` with the reason when work should be sent elsewhere: the phase, or a pass that hangs.

        New requests are taken all the same as long as there is a model and a worker is left.
        """
        self.readiness.check_ready()
        if self._batcher is not None and (hung := self._batcher.hung_passes):
            seconds = f"{self.policy.pass_timeout:g} s"
            what = f"{hung} passes have" if hung > 1 else "a pass has"
            raise NotReady(
                Phase.STALLED, f"{what} not ended after {seconds}; the process must be restarted unless this ends by itself"
            )

    def admitted(self, request: ClassifyRequest, arrived: float) -> Admitted:
        """Places for those of the request's texts that are not answered from the cache; `arrived` is on `perf_counter`'s clock.

        Not a coroutine, so that a request is refused in the very step in which it was read.

        Raises `NotReady`, `QueueFull`, `DeadlineExceeded`, `BatcherClosed` or `BatcherStalled`.
        """
        classifier = self.classifier
        assert self._batcher is not None
        assert self._cache is not None
        is_cached = self._is_cached(request)
        cached = [self._cache.get(text) if is_cached else None for text in request.texts]
        missing = [index for index, answer in enumerate(cached) if answer is None]
        if not missing:
            return Admitted(request, classifier, cached, missing, None, math.inf)
        deadline, left = self._time_left(request, arrived)
        places = self._batcher.reserve(len(missing), priority=request.priority, timeout=left)
        return Admitted(request, classifier, cached, missing, places, deadline)

    def reserved(self, places: int, priority: Priority) -> Reservation[Encoding, Prediction]:
        """Places in the queue, at most all of them, for work that is no pass; give them back by a `with` block.

        Raises `NotReady`, `QueueFull`, `BatcherClosed` or `BatcherStalled`.
        """
        self.readiness.check()
        assert self._batcher is not None
        return self._batcher.reserve(min(places, self.policy.max_queued), priority=priority)

    def _time_left(self, request: ClassifyRequest, arrived: float) -> tuple[float, float | None]:
        """The request's deadline on `perf_counter`'s clock, and the seconds until then; infinite and None without one."""
        asked = self.settings.default_timeout_ms / 1000 if request.timeout is None else request.timeout
        if asked == math.inf:
            return math.inf, None
        deadline = arrived + min(asked, self.settings.max_timeout_ms / 1000)
        return deadline, deadline - perf_counter()

    def is_short(self, request: ClassifyRequest) -> bool:
        """True when `begin` can take the request: one text, which is tokenized in no time and is not looked for in a cache."""
        return (
            len(request.texts) == 1 and len(request.texts[0]) <= TOKENIZE_INLINE_CHARACTERS and not self.settings.answer_cache_texts
        )

    def begin(
        self, request: ClassifyRequest, arrived: float, on_answer: Callable[[Classification | Exception], None]
    ) -> Callable[[], None] | None:
        """`admitted` and `classify` in one step, for a short request: `on_answer` is told the answer, or the error, when it comes.

        Returns what to call when the client leaves before that; None, with nothing done, if the text takes several windows. Raises
        what these two raise before a text is queued.
        """
        classifier = self.classifier
        assert self._batcher is not None
        batcher, (_, left) = self._batcher, self._time_left(request, arrived)
        deadline = batcher.check(priority=request.priority, timeout=left)
        started = perf_counter()
        encoding = _encoded(classifier, request, 0, strip=self._strips(request))
        if encoding.truncated and self._has_windows(request):
            return None
        tokenize = perf_counter() - started

        def take(outcome: BatchOutcome[Prediction] | BatchingError) -> None:
            if isinstance(outcome, BatchingError):
                outcome.index = None if request.single else 0
                on_answer(outcome)
                return
            timing = Timing(tokenize, outcome.wait, outcome.duration)
            stripped = [is_html(request.texts[0])] if self._strips(request) else [False]
            on_answer(Classification([outcome.result], [encoding.truncated], [encoding], timing, stripped, [len(encoding)], [1]))
            # What nobody waits for comes last.
            self.metrics.observe_timing(tokenize, outcome.wait, outcome.duration)

        return partial(batcher.leave, batcher.post(encoding, take, priority=request.priority, deadline=deadline))

    async def room(self, priority: Priority) -> None:
        """Wait until a text of any length would find room in the queue of a class; for those who would rather wait than hear 429.

        Nothing is reserved. Returns at once when there is no model in service, as `admitted` raises then.
        """
        if self._batcher is not None and self.model is not None:
            await self._batcher.room(self.model.max_length, priority=priority)

    async def classify(self, admitted: Admitted) -> Classification:
        """Classify an admitted request's texts, each an entry of its own in the batcher.

        Raises `RequestError` (a text is blank or too long), `QueueFull` (in tokens), `DeadlineExceeded`, `BatcherClosed`,
        `BatcherStalled` or `PassFailed`, whose `index` is the text's among several.
        """
        assert self._cache is not None
        request, missing, answers = admitted.request, admitted.missing, list(admitted.cached)
        is_cached = self._is_cached(request)
        timing = Timing(0.0, 0.0, 0.0)
        found: list[Encoding | None] = [None] * len(answers)
        if admitted.places is not None:
            started = perf_counter()
            texts = await self._encode(admitted)
            tokenize = perf_counter() - started
            encodings = [window for windows in texts for window in windows]
            admitted.places.add(len(encodings) - len(texts))
            try:
                outcomes = await admitted.places.submit(encodings)
            except PassFailed as error:
                text_of = [index for index, windows in zip(missing, texts, strict=True) for _ in windows]
                error.index = None if request.single or error.index is None else text_of[error.index]
                raise
            wait = duration = 0.0
            for outcome in outcomes:
                wait, duration = max(wait, outcome.wait), max(duration, outcome.duration)
            timing = Timing(tokenize=tokenize, queue=wait, inference=duration)
            self.metrics.observe_timing(timing.tokenize, timing.queue, timing.inference)
            results = iter(outcome.result for outcome in outcomes)
            for index, windows in zip(missing, texts, strict=True):
                prediction = self._joined(admitted.classifier, [next(results) for _ in windows])
                answer = CachedAnswer(prediction, sum(map(len, windows)), windows[-1].truncated, len(windows))
                answers[index], found[index] = answer, windows[0]
                if is_cached and self.settings.answer_cache_texts:
                    # Without its vector, which takes more memory than all the rest.
                    self._cache.put(request.texts[index], replace(answer, prediction=replace(prediction, first=None)))
        known = [answer for answer in answers if answer is not None]
        stripped = [is_html(text) for text in request.texts] if self._strips(request) else [False] * len(known)
        predictions, truncated = [answer.prediction for answer in known], [answer.truncated for answer in known]
        tokens, in_windows = [answer.tokens for answer in known], [answer.windows for answer in known]
        return Classification(predictions, truncated, found, timing, stripped, tokens, in_windows)

    def _joined(self, classifier: TextClassifier, windows: Sequence[Prediction]) -> Prediction:
        """The prediction of a text from those of its windows, which is nearly always one."""
        return windows[0] if len(windows) == 1 else classifier.joined(windows, self.settings.window_join)

    def _has_windows(self, request: ClassifyRequest) -> bool:
        """Whether a text over the limit is classified in windows; not if the request says itself what is to become of it."""
        return self.windows is not None and request.is_plain

    def _strips(self, request: ClassifyRequest) -> bool:
        """Whether the text is taken out of the HTML documents among the request's texts."""
        return self.settings.strip == "html" if request.strip is None else request.strip

    def _is_cached(self, request: ClassifyRequest) -> bool:
        """The cache has answers to texts that were cut and stripped as usual."""
        return request.is_plain and (request.strip is None or request.strip == (self.settings.strip == "html"))

    def note(self, request: ClassifyRequest, answer: Classification, request_id: str, first: int = 0) -> None:
        """Count an answer that is about to be sent: labels, confidences, lengths, drift; and put it into the prediction log.

        `first` is the index of the answer's first text among those with this request id, for feedback.
        """
        assert self.confidence is not None
        assert self.lengths is not None
        now = time()
        watched = self.drift if request.priority is Priority.INTERACTIVE else None
        for text, prediction, encoding, truncated in zip(
            request.texts, answer.predictions, answer.encodings, answer.truncated, strict=True
        ):
            self.confidence.observe(prediction)
            seen = None
            if encoding is not None:
                self.lengths.observe(len(encoding), truncated)
                if watched is not None:
                    seen = watched.see(now, request_id, text, encoding.ids, prediction)
            if self.prediction_log is not None:
                tokens = None if encoding is None else len(encoding)
                self.prediction_log.record(request_id, text, prediction, tokens, truncated=truncated, seen=seen, now=now)
        assert self.feedback is not None
        self.feedback.remember(request_id, answer.predictions, first)
        if self.lengths.due():
            _log_lengths("lengths", self.lengths.take_report(self.policy.max_items, self.policy.max_cost))

    def take_feedback(self, items: Sequence[Item]) -> Mapping[Outcome, int]:
        """Count feedback, and let drift detection see the answers that were drawn for review; what became of the items."""
        assert self.feedback is not None
        outcomes, drawn = self.feedback.take(items)
        if drawn and self.drift is not None:
            self.drift.see_labelled(time(), drawn)
        return outcomes

    async def _encode(self, admitted: Admitted) -> list[list[Encoding]]:
        """Tokenize the texts to classify, each in one window or several.

        Raises `RequestError` (blank or too long), and `DeadlineExceeded` on time.
        """
        request, indices, classifier = admitted.request, admitted.missing, admitted.classifier
        strip, windows = self._strips(request), self.windows if request.is_plain else None
        if request.single and len(request.texts[0]) <= TOKENIZE_INLINE_CHARACTERS:
            return [_windows(classifier, request, 0, windows, strip=strip)]
        is_wanted = True

        def encode() -> list[list[Encoding]]:
            encodings = []
            for index in indices:
                if not is_wanted:
                    break
                encodings.append(_windows(classifier, request, index, windows, strip=strip))
            return encodings

        if sum(len(request.texts[index]) for index in indices) <= TOKENIZE_INLINE_CHARACTERS:
            return encode()
        try:
            async with asyncio.timeout(admitted.deadline - perf_counter() if admitted.deadline < math.inf else None):
                return await anyio.to_thread.run_sync(encode, limiter=self.tokenizing, abandon_on_cancel=True)
        except TimeoutError as error:
            self._late_in_tokenizing += len(indices)
            raise DeadlineExceeded from error
        finally:
            is_wanted = False

    @property
    def is_leaving(self) -> bool:
        """True while the service goes on although the process was told to stop: clients should connect to another server."""
        return self.readiness.phase is Phase.LEAVING

    async def until_draining(self) -> None:
        """Wait until no new requests are taken, because the process ends."""
        await self._draining.wait()

    def skip_drain_delay(self) -> None:
        """Do not go on serving before draining, or no longer."""
        self._delay_is_over.set()

    async def drain(self) -> None:
        """Go on serving for DRAIN_DELAY_MS with `/ready` at 503; then refuse new requests, finish the accepted ones, and linger a
        little: late clients meet a 503, not a reset.

        What is not finished within the bound, or when this is cancelled, is answered 503, too; then `is_drained` stays False, and
        a pass may still be hanging.
        """
        await self._leave()
        self.readiness.set_draining()
        self._draining.set()
        log.info("draining")
        linger = asyncio.create_task(asyncio.sleep(self.settings.drain_linger_ms / 1000))
        try:
            self.is_drained = self._batcher is None or await self._batcher.close()
        finally:
            if not self.is_drained:
                self.is_hanging = True
                log.error("not all accepted requests were finished")
            if self._batcher is not None:
                self.is_hanging |= self._batcher.hung_passes > 0
                log.info("drained", **_counts(self._batcher.statistics()), **self.counters())
            if self.lengths is not None:
                _log_lengths("lengths", self.lengths.report(self.policy.max_items, self.policy.max_cost))
        await linger

    async def _leave(self) -> None:
        seconds = self.settings.drain_delay_ms / 1000
        if not seconds or self._delay_is_over.is_set() or self.readiness.phase is not Phase.READY:
            return
        self.readiness.set_leaving()
        log.info("leaving", seconds=seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._delay_is_over.wait()

    def counters(self) -> dict[str, int]:
        """Counts since the start of what is not the batcher's: texts in the cache or not, threads that died, late texts."""
        return {
            "cache_hits": self._cache.hits if self._cache else 0,
            "cache_misses": self._cache.misses if self._cache else 0,
            "threads_died": self._threads.died if self._threads else 0,
            "late_in_tokenizing": self._late_in_tokenizing,
        }

    def statistics(self) -> BatcherStatistics | None:
        """The batcher's snapshot; None before the model is loaded."""
        return self._batcher.statistics() if self._batcher else None

    def phase(self) -> Phase:
        """Where in its life the service is; STALLED when it is ready but a pass hangs."""
        try:
            self.check_ready()
        except NotReady as reason:
            return reason.phase
        return Phase.READY

    def is_ready(self) -> bool:
        """True when `GET /ready` answers 200."""
        return self.phase() is Phase.READY

    def _state(self) -> ServiceState:
        """What the metrics tell at a scrape."""
        model = None
        if self.model is not None and self._batcher is not None and self.confidence is not None and self.lengths is not None:
            assert self.feedback is not None
            model = ModelState(
                identity=self.model.identity,
                fingerprint=self.model.fingerprint,
                workers=self.policy.workers,
                queue_max_texts=self.policy.max_queued,
                queue_max_tokens=self.policy.max_queued_cost,
                batcher=self._batcher.statistics(),
                answers=self.confidence.snapshot(),
                lengths=self.lengths,
                drift=None if self.drift is None else self.drift.told,
                feedback=self.feedback,
                goldens={} if self.goldens is None else {"held": self.goldens.held, "failed": self.goldens.failed},
            )
        log_counts = None if self.prediction_log is None else self.prediction_log.counts()
        return ServiceState(self.is_ready(), self.counters(), log_counts, model)

    async def _load(self, threads: PassThreads, stack: AsyncExitStack) -> None:
        started = perf_counter()
        try:
            self.model = classifier = await threads.run(self._open_classifier)
            self.drift = drift = await threads.run(partial(self._open_drift, classifier))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a model, the reason belongs where operators look
            self.readiness.set_failed(f"{type(error).__name__}: {error}")
            log.error("model cannot be used", reason=self.readiness.reason)  # noqa: TRY400 - the reason is for operators, complete
            if self._on_failed is not None:
                self._on_failed()
            return

        classify = classifier.predict if drift is None else classifier.observe

        def predict(batch: list[Encoding]) -> asyncio.Future[Sequence[Prediction]]:
            # The only thread border on a ticket's way. No coroutine, so that the thread begins now and not at the loop's next turn.
            return threads.run(partial(classify, batch))

        batcher = Batcher(
            predict,
            self.policy,
            cost=len,
            # Texts of the same tokens have the same answer.
            key=lambda encoding: encoding.ids,
            divide=classifier.divide,
            on_pass=self._on_pass,
            drain_timeout=self.settings.drain_timeout_ms / 1000,
            clock=perf_counter,
        )
        if drift is not None:
            stack.push_async_callback(drift.close, DRIFT_CLOSING_SECONDS)
            drift.start()
            if self.prediction_log is not None:
                self.prediction_log.code_with(drift.codes)
        self._batcher = await stack.enter_async_context(batcher)
        self._cache = AnswerCache(self.settings.answer_cache_texts, classifier.fingerprint)
        problem = classifier.problem
        if problem.gives_labels:
            self.confidence = Confidence(problem, self.settings.low_confidence, perf_counter)
        else:
            self.confidence = Values(problem, perf_counter)
        if self.prediction_log is not None:
            self.prediction_log.answer_with(problem.record)
        self.lengths = LengthStatistics(classifier.max_length)
        self.feedback = Feedback(
            classifier.labels,
            classifier.fingerprint,
            secret=self.settings.feedback_secret.get_secret_value(),
            sample=self.settings.feedback_sample,
            # What cannot be right or wrong needs no memory.
            remembered=self.settings.feedback_answers if problem.gives_one_label else 0,
        )
        if self.settings.golden_check_seconds:
            self.goldens = GoldenChecks(classifier, threads.run, self._is_idle, self.settings.golden_check_seconds)
            checking = asyncio.create_task(self.goldens.keep_checking(), name="service.goldens")
            stack.callback(checking.cancel)
        self.readiness.set_ready()
        log.info(
            "ready",
            model=classifier.identity,
            workers=self.policy.workers,
            cores=self.cores.number,
            cores_from=self.cores.bound,
            seconds=round(perf_counter() - started, 3),
        )
        if self._on_ready is not None:
            self._on_ready(classifier)
        await self._log_earlier_lengths(threads, classifier.max_length)

    def _is_idle(self) -> bool:
        """True when no text waits or is in a pass."""
        return self._batcher is not None and self._batcher.statistics().waiting == 0

    def _open_drift(self, classifier: TextClassifier) -> DriftWatch | None:
        """What watches for drift, if anything does. Raises `DriftError`."""
        if not self.settings.drift:
            self.no_drift = "it is turned off (DRIFT=false)"
            return None
        problem, remedy = classifier.problem, ""
        if not problem.gives_one_label:
            self.no_drift = f"it needs a model that gives one label, and this one is {problem.type}"
        elif classifier.profile is None:
            self.no_drift, remedy = "the bundle has no profile", "; build it again with --dev"
        if not problem.gives_one_label or classifier.profile is None:
            if self.settings.drift_profile is not None:
                raise DriftError(f"DRIFT_PROFILE={self.settings.drift_profile}: {self.no_drift}{remedy}")
            log.info("drift is not watched", reason=self.no_drift)
            return None
        pieces = classifier.pieces
        profile = read_profile(classifier.profile, classifier.labels, len(pieces), classifier.first_width)
        options = self.settings.drift_options()
        if self.settings.drift_profile is not None:
            options = replace(options, baseline=read_baseline(self.settings.drift_profile, profile))
        return DriftWatch(profile, pieces, options)

    async def _log_earlier_lengths(self, threads: PassThreads, limit: int) -> None:
        """What the lengths in the prediction log of an earlier run advise."""
        if self.prediction_log is None:
            return
        try:
            earlier = await threads.run(partial(from_prediction_log, self.prediction_log.paths(), limit))
        except Exception as error:  # noqa: BLE001 - it is advice, and the server is at work already
            log.warning("the lengths of an earlier run cannot be told", reason=type(error).__name__)
            return
        _log_lengths("lengths of an earlier run", earlier.report(self.policy.max_items, self.policy.max_cost))

    def _on_pass(self, report: PassReport) -> None:
        self.metrics.observe_pass(report)
        if report.end is not PassEnd.DONE:
            _log_pass(report)


def _encoded(classifier: TextClassifier, request: ClassifyRequest, index: int, *, strip: bool) -> Encoding:
    """One of a request's texts as tokens. Raises `RequestError` when it is blank, or too long for a request that wants it whole."""
    text = request.texts[index]
    try:
        encoding = classifier.encode(plain_text(text) if strip else text, request.keep)
    except BlankTextError as error:
        raise blank_text(request.place(index)) from error
    if encoding.truncated and request.must_fit:
        raise too_long_text(request.place(index), classifier.max_length)
    return encoding


def _windows(
    classifier: TextClassifier, request: ClassifyRequest, index: int, windows: Windows | None, *, strip: bool
) -> list[Encoding]:
    """One of a request's texts as tokens, in as many windows as it takes, or truncated without `windows`. Raises `RequestError`."""
    encoding = _encoded(classifier, request, index, strip=strip)
    if windows is None or not encoding.truncated:
        return [encoding]
    text = request.texts[index]
    return classifier.windows(plain_text(text) if strip else text, windows.overlap, windows.most)


def _log_lengths(event: str, report: LengthReport | None) -> None:
    if report is not None and report.summary.texts:
        log.info(event, **report.facts())


def _log_pass(report: PassReport) -> None:
    """Passes that ended well are not logged; the others are, never with a text."""
    facts = {"texts": report.items, "tokens": report.cost, "seconds": round(report.seconds, 3)}
    if report.end in {PassEnd.FAILED, PassEnd.DIED}:
        log.error("pass failed" if report.end is PassEnd.FAILED else "pass died", **facts, exc_info=report.error)
    elif report.end is PassEnd.HALVED:
        # The whole story is told at the end, once for each text at fault.
        log.warning("pass failed, its halves are tried", **facts, reason=type(report.error).__name__)
    elif report.end is PassEnd.HUNG:
        log.critical("pass hangs: its callers are answered, its worker is replaced, /ready is 503 until it ends", **facts)
    elif report.end is PassEnd.RECOVERED:
        log.warning("pass that hung has ended", **facts)
