"""The server's own figures, from `/metrics`, before and after a run: what they grew by is what the run did."""

from __future__ import annotations

import http.client
import math
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as Metric

from loadtest.results import Batches

TIMEOUT_SECONDS = 5
_DRIFT = {"level": "input", "state": "drift"}
_ANSWERED = {"route": "/classify", "status": "200"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What has been counted since the server started; `buckets` are (upper bound in seconds, requests up to it) of latencies.

    `pass_seconds` is what all passes took; `sizes` are (upper bound in texts, passes up to it).
    `drifting` is whether drift detection says that other texts are sent, None where it says nothing.
    `queued` is the texts that wait now. `cpu` is in seconds, `rss` in bytes; None if the server does not tell.
    """

    passes: float
    pass_seconds: float
    texts: float
    tokens: float
    flushes: Mapping[str, float]
    cells: float
    padded_cells: float
    answered: float
    buckets: tuple[tuple[float, float], ...]
    sizes: tuple[tuple[float, float], ...]
    queued: float
    cpu: float | None
    rss: float | None
    drifting: bool | None = None


def scrape(url: str) -> Snapshot | None:
    """The figures of the server at a URL; None if it has none (it is another server) or does not answer."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - an http URL, checked
            text = response.read().decode()
    except (OSError, http.client.HTTPException):
        return None
    return parse_metrics(text)


def parse_metrics(text: str) -> Snapshot | None:
    """Parse the text format of Prometheus; None if our metrics are not in it."""
    metrics = [metric for family in text_string_to_metric_families(text) for metric in family.samples]
    by_name = {metric.name: metric.value for metric in metrics if not metric.labels}
    if "supportbot_pass_texts_count" not in by_name:
        return None
    latency = [metric for metric in metrics if _is_latency(metric)]
    return Snapshot(
        passes=by_name["supportbot_pass_texts_count"],
        pass_seconds=by_name.get("supportbot_pass_seconds_sum", 0.0),
        texts=by_name.get("supportbot_pass_texts_sum", 0.0),
        tokens=by_name.get("supportbot_pass_tokens_sum", 0.0),
        flushes={metric.labels["reason"]: metric.value for metric in metrics if metric.name == "supportbot_flushes_total"},
        cells=by_name.get("supportbot_attention_cells_total", 0.0),
        padded_cells=by_name.get("supportbot_padded_attention_cells_total", 0.0),
        answered=sum(metric.value for metric in latency if metric.name.endswith("_count")),
        buckets=_buckets(latency, "supportbot_http_request_duration_seconds_bucket"),
        sizes=_buckets(metrics, "supportbot_pass_texts_bucket"),
        queued=sum(metric.value for metric in metrics if metric.name == "supportbot_queued_texts"),
        cpu=by_name.get("process_cpu_seconds_total"),
        rss=by_name.get("process_resident_memory_bytes"),
        drifting=next((bool(metric.value) for metric in metrics if metric.labels == _DRIFT), None),
    )


def batches_between(before: Snapshot | None, after: Snapshot | None) -> Batches | None:
    """What a run did; None without figures from both its ends, or without a pass."""
    if before is None or after is None or after.passes <= before.passes:
        return None
    passes, cells = after.passes - before.passes, after.cells - before.cells
    buckets = _grown(before.buckets, after.buckets)
    flushes = {reason: round(count - before.flushes.get(reason, 0.0)) for reason, count in after.flushes.items()}
    return Batches(
        passes=round(passes),
        texts=(after.texts - before.texts) / passes,
        tokens=(after.tokens - before.tokens) / passes,
        flushes={reason: count for reason, count in flushes.items() if count},
        sizes=passes_by_texts(_grown(before.sizes, after.sizes)),
        padding_ratio=(after.padded_cells - before.padded_cells) / cells if cells else 1.0,
        server_p50=bucket_quantile(buckets, 0.5),
        server_p99=bucket_quantile(buckets, 0.99),
        requests=round(after.answered - before.answered),
    )


def passes_by_texts(buckets: Sequence[tuple[float, float]]) -> dict[str, int]:
    """Passes by the number of their texts, as people read it, from (upper bound in texts, passes up to it); sizes that were."""
    found, lower, below = {}, 0, 0.0
    for upper, count in buckets:
        if count > below:
            name = f"over {lower}" if math.isinf(upper) else f"{lower + 1} to {upper:.0f}" if upper > lower + 1 else f"{upper:.0f}"
            found[name] = round(count - below)
        lower, below = (lower if math.isinf(upper) else round(upper)), count
    return found


def _buckets(metrics: Iterable[Metric], name: str) -> tuple[tuple[float, float], ...]:
    return tuple((float(metric.labels["le"]), metric.value) for metric in metrics if metric.name == name)


def _grown(before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    earlier = dict(before)
    return [(bound, count - earlier.get(bound, 0.0)) for bound, count in after]


def bucket_quantile(buckets: list[tuple[float, float]], share: float) -> float | None:
    """A quantile in milliseconds from (upper bound in seconds, requests up to it), evenly spread within each bucket.

    None without requests; the highest finite bound if it lies beyond that.
    """
    total = buckets[-1][1] if buckets else 0.0
    if total <= 0:
        return None
    lower, below = 0.0, 0.0
    for upper, count in buckets:
        if count >= share * total and count > below:
            within = (share * total - below) / (count - below)
            return 1000 * (lower if math.isinf(upper) else lower + (upper - lower) * within)
        lower, below = upper, count
    return 1000 * lower


def _is_latency(metric: Metric) -> bool:
    return metric.name.startswith("supportbot_http_request_duration_seconds_") and _ANSWERED.items() <= metric.labels.items()
