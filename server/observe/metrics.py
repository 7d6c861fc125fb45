"""What Prometheus is told at `GET /metrics`.

Everything is counted in plain numbers, here or by the part that counts it anyway (the batcher, confidence, lengths), and made into
metrics at a scrape; `prometheus_client` knows how they are written. Its own histograms take 0.8 us a value, these 0.25.

Labels are bounded: routes that exist, statuses that are answered, reasons that the code names, labels of the model; nothing that a
client can make up. Times are in seconds, as Prometheus wants them. One registry for each application, so nothing is global.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import accumulate
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from batching import BatcherStatistics, PassEnd, PassReport, Priority
from drift import State
from server.observe.confidence import BOUNDS, Snapshot
from server.observe.drift import DriftCounts
from server.observe.feedback import Feedback
from server.observe.lengths import LengthStatistics
from server.observe.prediction_log import LogCounts
from server.observe.values import ValueSnapshot

K = TypeVar("K", bound=str)

# From one short text alone in its pass (1 ms and a half) to a client that waited for most of a full queue. Near 1.5 times apart
# where answers usually are; 0.25 s is a bound that people set.
SECONDS: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 1.5, 2.5, 5.0, 10.0),
)
TEXTS: Final = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128)
TOKENS: Final = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
TEXT_TOKENS: Final = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)

# The routes that are always there; the dialects that are served have more.
ROUTES: Final = frozenset(
    {
        "/",
        "/classify",
        "/health",
        "/ready",
        "/metrics",
        "/confidence",
        "/drift",
        "/drift/counts",
        "/feedback",
        "/drift/accept",
        "/openapi.json",
        "/docs",
        "/docs/{file}",
    }
)
OTHER_ROUTE: Final = "other"
NOT_ANSWERED: Final = "none"


class Histogram:
    """Counts values by the first of `bounds` that they do not exceed, and beyond the last; `total` is their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class StreamCounts:
    """Streams of lines: how many are open, and how many lines were answered or failed."""

    open: int = 0
    answered: int = 0
    failed: int = 0

    def count(self, *, failed: bool) -> None:
        """A line has its answer, or an error in its place."""
        self.failed += failed
        self.answered += not failed


@dataclass(frozen=True, slots=True)
class ModelState:
    """What is known once the model is in service."""

    identity: str
    fingerprint: str
    workers: int
    queue_max_texts: int
    queue_max_tokens: int
    batcher: BatcherStatistics
    answers: Snapshot | ValueSnapshot
    lengths: LengthStatistics
    drift: DriftCounts | None
    feedback: Feedback
    goldens: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What the service and its parts have counted, at a scrape; `model` and `prediction_log` are None where there is none."""

    is_ready: bool
    counters: Mapping[str, int]
    prediction_log: LogCounts | None
    model: ModelState | None


class Metrics:
    """The registry, and what is observed as it happens. Used on the event loop's thread only."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.routes = set(ROUTES)
        self.requests: dict[tuple[str, str, int], Histogram] = {}
        self.tokenize, self.queue, self.inference = Histogram(SECONDS), Histogram(SECONDS), Histogram(SECONDS)
        self.pass_seconds, self.pass_texts, self.pass_tokens = Histogram(SECONDS), Histogram(TEXTS), Histogram(TOKENS)
        self.passes = dict.fromkeys(PassEnd, 0)
        self.streams = StreamCounts()
        self.registry.register(_MetricsCollector(self))

    def watch(self, state: Callable[[], ServiceState]) -> None:
        """Include what the service and its parts have counted; `state` is called at each scrape."""
        self.registry.register(_ServiceCollector(state))

    def observe_request(self, path: str, dialect: str, status: int, seconds: float) -> None:
        """A request of any route is over; no dialect if it was not for one, status 0 if it got no answer.

        `path` is a label of its own only if it is one of `routes`; a dialect is always one that the server knows.
        """
        key = (path if path in self.routes else OTHER_ROUTE, dialect, status)
        histogram = self.requests.get(key)
        if histogram is None:
            histogram = self.requests[key] = Histogram(SECONDS)
        histogram.observe(seconds)

    def observe_timing(self, tokenize: float, queue: float, inference: float) -> None:
        """A request with a text that was not in the cache has its answer; where its time went, in seconds."""
        self.tokenize.observe(tokenize)
        self.queue.observe(queue)
        self.inference.observe(inference)

    def observe_pass(self, report: PassReport) -> None:
        """A pass has ended or was given up as hanging; one that was given up is not measured a second time when it ends."""
        self.passes[report.end] += 1
        if report.end in {PassEnd.DONE, PassEnd.HALVED, PassEnd.FAILED}:
            self.pass_seconds.observe(report.seconds)
            self.pass_texts.observe(report.items)
            self.pass_tokens.observe(report.cost)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """(the body, its content type) in the format that an `Accept` header prefers: Prometheus' text or OpenMetrics.

        Takes some 5 ms for 570 samples. Not in a thread, which would hold the interpreter for as long, and see counts in motion.
        """
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type


class _Collector(Collector):
    def describe(self) -> Iterable[Metric]:
        """Nothing: names are checked by tests, and collecting at registration would come before there is a model."""
        return ()


class _MetricsCollector(_Collector):
    """Reads what is observed as it happens."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """All families."""
        metrics = self._metrics
        name, documentation = "supportbot_http_request_duration_seconds", "From a request's head to the last byte of its answer"
        requests = HistogramMetricFamily(name, documentation, labels=["route", "dialect", "status"])
        for (route, dialect, status), histogram in metrics.requests.items():
            requests.add_metric([route, dialect, str(status) if status else NOT_ANSWERED], *_buckets(histogram))
        yield requests
        yield _histogram("tokenize_seconds", "Tokenizing a request's texts, as Server-Timing has it", metrics.tokenize)
        yield _histogram("queue_seconds", "Waiting of a request's slowest text for its pass", metrics.queue)
        yield _histogram("inference_seconds", "Passes of a request's slowest text", metrics.inference)
        yield _histogram("pass_seconds", "Duration of a pass that ended", metrics.pass_seconds)
        yield _histogram("pass_texts", "Texts in a pass that ended", metrics.pass_texts)
        yield _histogram("pass_tokens", "Tokens in a pass that ended", metrics.pass_tokens)
        yield _counters("passes", "Passes by what became of them", "end", metrics.passes)
        streams = metrics.streams
        yield _gauge("streams", "Streams of lines that are open", streams.open)
        lines = {"answered": streams.answered, "failed": streams.failed}
        yield _counters("stream_lines", "Lines of streams by what became of them", "outcome", lines)


class _ServiceCollector(_Collector):
    """Reads the service's own counts."""

    def __init__(self, state: Callable[[], ServiceState]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """All families for which there is something to tell."""
        state = self._state()
        yield _gauge("ready", "1 if /ready answers 200", state.is_ready)
        yield _info(
            "build",
            "Versions",
            {
                "version": metadata.version("supportbot"),
                "onnxruntime": metadata.version("onnxruntime"),
                "python": platform.python_version(),
            },
        )
        yield from _of_counters(state.counters)
        if state.prediction_log is not None:
            yield from _of_prediction_log(state.prediction_log)
        model = state.model
        if model is None:
            return
        yield _info("model", "The model in service", {"model": model.identity, "fingerprint": model.fingerprint})
        yield _gauge("workers", "Passes that may run at the same time", model.workers)
        yield _gauge("queue_max_texts", "Bound on waiting texts of each class", model.queue_max_texts)
        yield _gauge("queue_max_tokens", "Bound on waiting tokens of each class", model.queue_max_tokens)
        yield from _of_batcher(model.batcher)
        yield from _of_values(model.answers) if isinstance(model.answers, ValueSnapshot) else _of_confidence(model.answers)
        yield from _of_lengths(model.lengths)
        yield _counters("golden_checks", "Golden texts checked since the start", "outcome", model.goldens)
        yield from _of_feedback(model.feedback)
        if model.drift is not None:
            yield from _of_drift(model.drift)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"supportbot_{name}", documentation, value)


def _counter(name: str, documentation: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"supportbot_{name}", documentation, value)


def _info(name: str, documentation: str, values: dict[str, str]) -> InfoMetricFamily:
    return InfoMetricFamily(f"supportbot_{name}", documentation, values)


def _counters(name: str, documentation: str, label: str, values: Mapping[K, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"supportbot_{name}", documentation, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _gauges(name: str, documentation: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"supportbot_{name}", documentation, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(name: str, documentation: str, histogram: Histogram) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"supportbot_{name}", documentation, *_buckets(histogram))


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """(the count up to each bound, the sum of all values), as Prometheus has it."""
    names = [*(str(float(bound)) for bound in histogram.bounds), "+Inf"]
    return [(name, float(count)) for name, count in zip(names, accumulate(histogram.counts), strict=True)], histogram.total


# Of the batcher's snapshot: name, documentation, value.
_GAUGES: Final[tuple[tuple[str, str, Callable[[BatcherStatistics], float]], ...]] = (
    ("queued_tokens", "Tokens that wait in both classes", lambda now: now.queued_cost),
    ("reserved_places", "Places held for texts that are being tokenized", lambda now: now.reserved),
    ("in_flight_texts", "Distinct texts in passes that somebody waits for", lambda now: now.in_flight),
    ("waiting_texts", "Accepted texts without an outcome", lambda now: now.waiting),
    ("running_passes", "Batches that have a worker", lambda now: now.running_passes),
    ("hung_passes", "Passes given up as hanging that have not ended", lambda now: now.hung_passes),
    ("peak_queued_texts", "Most places taken at once in one class", lambda now: now.peak_queued),
)
_COUNTERS: Final[tuple[tuple[str, str, Callable[[BatcherStatistics], float]], ...]] = (
    ("coalesced_texts", "Accepted texts that joined an equal one on its way", lambda now: now.coalesced),
    ("bisected_batches", "Failing batches that were halved", lambda now: now.bisected),
    ("extra_passes", "Passes spent on finding the texts at fault", lambda now: now.extra_passes),
    ("attention_cells", "Sum of squared token lengths of texts in passes", lambda now: now.cells),
    ("padded_attention_cells", "The same if each pass were padded to its longest text", lambda now: now.padded_cells),
)


def _by_priority(both: int, bulk: int) -> dict[str, int]:
    return {Priority.INTERACTIVE.value: both - bulk, Priority.BULK.value: bulk}


def _of_batcher(now: BatcherStatistics) -> Iterator[Metric]:
    for name, documentation, value in _GAUGES:
        yield _gauge(name, documentation, value(now))
    for name, documentation, value in _COUNTERS:
        yield _counter(name, documentation, value(now))
    yield _gauges("queued_texts", "Distinct texts that wait, by class", "priority", _by_priority(now.queued, now.queued_bulk))
    accepted = _by_priority(now.accepted, now.accepted_bulk)
    yield _counters("accepted_texts", "Texts that were given to the batcher, by class", "priority", accepted)
    outcomes = ("answered", "failed", "abandoned", "expired")
    by_outcome = {name: getattr(now, name) for name in outcomes}
    yield _counters("texts", "Accepted texts by their outcome", "outcome", by_outcome)
    yield _counters("dropped_texts", "Queued texts left without a caller", "reason", now.drops)
    yield _counters("flushes", "Batches by why they left the queue", "reason", now.flushes)
    refused = CounterMetricFamily("supportbot_refused_texts", "Texts refused at the door", labels=["reason", "priority"])
    for priority, count in now.refused.items():
        refused.add_metric(["queue_full", priority.value], count)
    # Of these, the batcher does not count classes apart.
    refused.add_metric(["late", ""], now.late)
    refused.add_metric(["unmeetable", ""], now.unmeetable)
    yield refused


def _of_counters(counters: Mapping[str, int]) -> Iterator[Metric]:
    lookups = {"hit": counters["cache_hits"], "miss": counters["cache_misses"]}
    yield _counters("cache_lookups", "Texts looked up in the answer cache", "result", lookups)
    yield _counter("threads_died", "Threads for passes that ended unforeseen", counters["threads_died"])
    yield _counter("late_in_tokenizing_texts", "Texts whose deadline came in tokenizing", counters["late_in_tokenizing"])


def _of_prediction_log(counts: LogCounts) -> Iterator[Metric]:
    outcomes = {"written": counts.written, "lost": sum(counts.lost.values())}
    yield _counters("prediction_log_records", "Records of the prediction log by what became of them", "outcome", outcomes)
    yield _gauge("prediction_log_pending", "Records on their way to the file", counts.pending)


def _of_confidence(snapshot: Snapshot) -> Iterator[Metric]:
    totals = snapshot.totals
    yield _counters("predictions", "Predicted labels, those of answers from the cache included", "label", totals.labels)
    confidence = Histogram(BOUNDS)
    confidence.counts[:-1], confidence.total = totals.histogram, totals.confidence_sum
    yield _histogram("confidence", "Confidence of answers", confidence)
    yield _counter("unlabelled_texts", "Answered texts for which no label was predicted", totals.unlabelled)
    yield _counter("low_confidence_texts", "Answers below LOW_CONFIDENCE", totals.low)
    # A window without texts has no mean, and so no sample.
    windows = snapshot.windows.items()
    means = {name: window.mean for name, window in windows if window.mean is not None}
    yield _gauges("confidence_mean", "Mean confidence in the last minute, hour, day", "window", means)
    shares = {name: window.low_share for name, window in windows if window.low_share is not None}
    yield _gauges("low_confidence_share", "Share of answers below LOW_CONFIDENCE in a window", "window", shares)


def _of_values(snapshot: ValueSnapshot) -> Iterator[Metric]:
    values = Histogram(snapshot.bounds)
    values.counts[:], values.total = snapshot.histogram, snapshot.total
    yield _histogram("value", "Numbers that were answered, those from the cache included", values)
    windows = snapshot.windows.items()
    means = {name: window.mean for name, window in windows if window.mean is not None}
    yield _gauges("value_mean", "Mean of the numbers in the last minute, hour, day", "window", means)
    deviations = {name: window.deviation for name, window in windows if window.deviation is not None}
    yield _gauges("value_standard_deviation", "Their standard deviation in a window", "window", deviations)


def _of_lengths(lengths: LengthStatistics) -> Iterator[Metric]:
    tokens = Histogram(TEXT_TOKENS)
    for length, count in enumerate(lengths.counts):
        tokens.counts[bisect_left(TEXT_TOKENS, length)] += count
        tokens.total += length * count
    yield _histogram("text_tokens", "Tokens of a text that was tokenized, cut at the model's limit", tokens)
    yield _counter("truncated_texts", "Texts that were cut at the model's limit", lengths.truncated)


def _of_feedback(feedback: Feedback) -> Iterator[Metric]:
    yield _counters("feedback", "Feedback on answers by what became of it", "outcome", feedback.outcomes)
    yield _counter("feedback_reviews", "Tokens handed out for answers that were drawn for review", feedback.reviews)
    labels = CounterMetricFamily(
        "supportbot_feedback_labels",
        "Accepted feedback: labels, and if the answer was drawn",
        labels=["predicted", "true", "drawn"],
    )
    for (predicted, true, drawn), count in feedback.labelled.items():
        labels.add_metric([predicted, true, "yes" if drawn else "no"], count)
    yield labels


def _of_drift(counts: DriftCounts) -> Iterator[Metric]:
    yield _counters("drift_texts", "Interactive texts by whether drift detection counted them", "outcome", counts.texts)
    state = GaugeMetricFamily("supportbot_drift_state", "1 for the state that a level is in", labels=["level", "state"])
    evidence: dict[str, float] = {}
    for level, (current, value) in counts.levels.items():
        for each in State:
            state.add_metric([level, str(each)], each is current)
        evidence[level] = value
    yield state
    yield _gauges("drift_evidence", "How near a level is to an alarm, from 0 to 1, logarithmic", "level", evidence)
    yield _gauge("drift_baseline_texts", "Texts of the baseline, 0 while there is none", counts.baseline_texts)
    yield _counters("drift_state_saves", "Writes of the state file by what became of them", "outcome", counts.saves)
    if counts.accuracy is not None:
        yield _gauge("drift_estimated_accuracy", "Estimated accuracy in the last hour", counts.accuracy)
