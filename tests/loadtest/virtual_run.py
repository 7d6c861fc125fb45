"""Results like those of a real run, without one: a batching server in virtual time, whose latency bends where it saturates."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
from numpy.typing import NDArray

from loadtest.results import Batches, Gate, Machine, Percentiles, Phase, Result, Second

Floats = NDArray[np.float64]
CORES = 2
MAX_BATCH, MAX_QUEUE = 16, 400


@dataclass(frozen=True)
class Served:
    """Of each request its intended start and whether it failed, and of the answered ones where their time went, in seconds."""

    start: Floats
    failed: NDArray[np.bool_]
    queue: Floats
    inference: Floats
    batches: list[int]


def percentiles(milliseconds: Floats) -> Percentiles | None:
    if not len(milliseconds):
        return None
    points = np.percentile(milliseconds, [50, 90, 95, 99, 99.9])
    names = ("p50", "p90", "p95", "p99", "p999")
    return Percentiles(
        count=len(milliseconds),
        mean=float(milliseconds.mean()),
        max=float(milliseconds.max()),
        **dict(zip(names, map(float, points), strict=True)),
    )


def serve(rates: Sequence[tuple[float, float]], seed: int, slower: float) -> Served:
    """Poisson arrivals at (rate, seconds), answered in passes of up to 16 requests by one worker; a full queue refuses."""
    random = np.random.default_rng(seed)
    begins = np.cumsum([0.0, *(seconds for _, seconds in rates)])
    start = np.concatenate(
        [
            np.sort(random.uniform(begin, begin + span, round(rate * span)))
            for begin, (rate, span) in zip(begins, rates, strict=False)
        ]
    )
    failed, queue, inference = np.zeros(len(start), dtype=bool), np.zeros(len(start)), np.zeros(len(start))
    batches: list[int] = []
    waiting: list[int] = []
    free, arrived = 0.0, 0
    while arrived < len(start) or waiting:
        now = max(free, float(start[waiting[0] if waiting else arrived]))
        while arrived < len(start) and start[arrived] <= now:
            failed[arrived] = len(waiting) >= MAX_QUEUE
            if not failed[arrived]:
                waiting.append(arrived)
            arrived += 1
        batch, waiting = waiting[:MAX_BATCH], waiting[MAX_BATCH:]
        free = now + slower * (0.003 + 0.0012 * len(batch)) * random.lognormal(0, 0.12)
        queue[batch], inference[batch] = now - start[batch], free - now
        batches.append(len(batch))
    return Served(start, failed, queue, inference, batches)


def histogram(milliseconds: Floats) -> str:
    recorded = HdrHistogram(1, 120_000_000, 3)
    for value, count in zip(*np.unique(np.maximum(milliseconds * 1000, 1).astype(int), return_counts=True), strict=True):
        recorded.record_value(int(value), int(count))
    encoded = recorded.encode()
    return encoded.decode() if isinstance(encoded, bytes) else base64.b64encode(encoded).decode()


def virtual_run(
    scenario: str = "steady",
    rates: Sequence[tuple[float, float]] = ((300.0, 20.0),),
    *,
    seed: int = 1,
    slower: float = 1.0,
    **changes: object,
) -> Result:
    """The result of a run at (rate, seconds) after another; `changes` are fields to replace."""
    served = serve(rates, seed, slower)
    random = np.random.default_rng(seed + 1)
    good = ~served.failed
    seconds = float(sum(span for _, span in rates))
    tokenize, rest = random.lognormal(-1.6, 0.3, len(good)), random.lognormal(-0.4, 0.5, len(good))
    service = tokenize + 1000 * (served.queue + served.inference) + rest
    late = random.lognormal(-2.5, 1.0, len(good))
    latency = service + late
    offered = len(good) / seconds

    def within(begin: float, end: float) -> NDArray[np.bool_]:
        return (served.start >= begin) & (served.start < end)

    def second(at: int) -> Second:
        inside = within(at, at + 1)
        answered = percentiles(latency[inside & good])
        busy = min(1.0, float(served.inference[inside & good].sum()) / 6)
        return Second(
            at=at,
            offered=int(inside.sum()),
            answered=int((inside & good).sum()),
            failed=int((inside & ~good).sum()),
            p50=answered.p50 if answered else None,
            p99=answered.p99 if answered else None,
            max=answered.max if answered else None,
            server_cpu=round(0.05 + busy * float(random.normal(1.2, 0.04)), 3),
            client_cpu=round(0.04 + inside.sum() * 0.0006 * float(random.normal(1, 0.05)), 3),
            server_rss=round(212 + 9 * (1 - np.exp(-at / 6)) + float(random.normal(0, 0.3)), 1),
            queued=int(random.poisson(1000 * served.queue[inside & good].mean() * 0.3)) if (inside & good).any() else 0,
        )

    def phase(number: int, begin: float, span: float) -> Phase:
        inside = within(begin, begin + span)
        return Phase(
            name=f"step {number + 1}" if len(rates) > 1 else "steady",
            begin=begin,
            seconds=span,
            offered_rate=float(inside.sum()) / span,
            achieved_rate=float((inside & good).sum()) / span,
            failed=int((inside & ~good).sum()),
            latency=percentiles(latency[inside & good]),
        )

    begins = np.cumsum([0.0, *(span for _, span in rates)])
    stretches = [percentiles(latency[good & within(seconds * part / 10, seconds * (part + 1) / 10)]) for part in range(10)]
    series = [second(at) for at in range(round(seconds))]
    passes = len(served.batches)
    full = sum(size == MAX_BATCH for size in served.batches)
    answered = percentiles(latency[good])
    assert answered is not None
    result = Result(
        scenario=scenario,
        description="A constant rate of single texts of mixed lengths, as tickets come on a working day.",
        generator="light",
        started="2026-03-14T09:26:53Z",
        seed=seed,
        machine=Machine(processor="AMD EPYC 7B13", cores=CORES, python="3.11.9", platform="Linux-6.1.0-x86_64-with-glibc2.36"),
        target="started here",
        model="supportbot 1.0 (int8)",
        server_settings={"WORKERS": "1", "BATCH_MAX_TOKENS": "512"},
        seconds=seconds,
        offered_rate=offered,
        achieved_rate=float(good.sum()) / seconds,
        requests=len(good),
        texts=len(good),
        errors={"429": int((~good).sum())} if (~good).any() else {},
        expected={},
        latency=answered,
        service_time=percentiles(service[good]),
        histogram=histogram(latency[good]),
        stretches=[stretch for stretch in stretches if stretch],
        stages={
            name: found
            for name, values in (
                ("tokenize", tokenize),
                ("queue", served.queue * 1000),
                ("inference", served.inference * 1000),
                ("rest", rest + late),
            )
            if (found := percentiles(values[good]))
        },
        groups={},
        series=series,
        phases=[phase(number, float(begins[number]), span) for number, (_, span) in enumerate(rates)],
        batches=Batches(
            passes=passes,
            texts=float(np.mean(served.batches)),
            tokens=float(np.mean(served.batches)) * 23.4,
            flushes={"idle": passes - full, "full": full},
            sizes={"1": passes - full, "over 24": full} if full else {"1": passes},
            padding_ratio=1.62,
            server_p50=answered.p50 - 0.6,
            server_p99=answered.p99 * 0.97,
            requests=len(good),
        ),
        server_cpu=float(np.mean([second.server_cpu or 0 for second in series])),
        client_cpu=float(np.mean([second.client_cpu or 0 for second in series])),
        server_rss_begin=212.0,
        server_rss_end=221.3,
        server_rss_peak=222.0,
        lateness=percentiles(late),
        pass_ms=4.2 * slower,
        gates=[
            Gate(name="share of failed requests", bound=0.001, measured=float((~good).mean()), passed=not (~good).any()),
            Gate(name="p99 over the time of one pass", bound=12, measured=answered.p99 / 4.2, passed=answered.p99 / 4.2 <= 12),
            Gate(name="achieved over offered rate", bound=0.98, measured=float(good.mean()), passed=bool(good.mean() >= 0.98)),
        ],
    )
    return result.model_copy(update=changes)
