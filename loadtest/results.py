"""What a load test found, as it is kept in a JSON file: one run, complete enough to draw it, to judge it, and to compare it.

Times are in milliseconds, rates a second, CPU in cores, memory in MB (10^6 bytes). Latency counts from the intended start of a
request, so that a generator or a server that falls behind is not forgiven (coordinated omission); service time counts from the
moment it was sent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FORMAT_VERSION = 1

# Where a request's time goes: the parts of Server-Timing, and what is left of the latency (network, HTTP, waiting to be sent).
STAGES = ("tokenize", "queue", "inference", "rest")


class ResultError(Exception):
    """Raised when a file is not a load test's result; the message names it and says why."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Percentiles(_Record):
    """Of `count` values in milliseconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float


class Second(_Record):
    """One second of the run; `at` counts seconds from its start. Latencies are of requests that were to start in it.

    None where nothing was to be measured: no request, or a server that is not ours to look at.
    """

    at: int
    offered: int
    answered: int
    failed: int
    p50: float | None = None
    p99: float | None = None
    max: float | None = None
    server_cpu: float | None = None
    client_cpu: float | None = None
    server_rss: float | None = None
    queued: int | None = None


class Phase(_Record):
    """A stretch of the run at one rate; a ramp has several."""

    name: str
    begin: float
    seconds: float
    offered_rate: float
    achieved_rate: float
    failed: int
    latency: Percentiles | None


class Batches(_Record):
    """What the server's own counters say of the run, by `/metrics` before and after it.

    `texts` and `tokens` are per pass, `sizes` the number of passes by their texts ("5 to 8"); `padding_ratio` is cells if padded to
    the longest over real ones. The server's latency percentiles are estimated from its histogram's buckets, and so is nothing finer
    than a bucket; they cross-check the client's.
    """

    passes: int
    texts: float
    tokens: float
    flushes: dict[str, int]
    sizes: dict[str, int] = {}
    padding_ratio: float
    server_p50: float | None
    server_p99: float | None
    requests: int


class Gate(_Record):
    """A bound and what was measured against it; None where that could not be measured, which is not passed."""

    name: str
    bound: float
    measured: float | None
    passed: bool


class Machine(_Record):
    """Where it ran."""

    processor: str
    cores: int
    python: str
    platform: str


class Result(_Record):
    """One run of one scenario."""

    format_version: Annotated[int, Field(ge=FORMAT_VERSION, le=FORMAT_VERSION)] = FORMAT_VERSION
    scenario: str
    description: str
    generator: Literal["locust", "light"]
    started: str  # ISO 8601, UTC
    seed: int
    machine: Machine
    target: str  # "started here", or the URL's host
    model: str
    server_settings: dict[str, str]  # those that the run set
    seconds: float
    offered_rate: float
    achieved_rate: float
    requests: int
    texts: int
    # By what went wrong: "429", "504", "disconnected", "timeout", "wrong_label", "malformed". What a scenario expects, such as an
    # overload's 429 or an impatient client's own leaving, is in `expected`, not in `errors`.
    errors: dict[str, int]
    expected: dict[str, int]
    latency: Percentiles | None
    service_time: Percentiles | None
    # An HDR histogram of latencies in microseconds, in its own compressed encoding (base64).
    histogram: str
    # Latency in ten equal stretches of the run: how much p50 and p99 vary within it.
    stretches: list[Percentiles]
    stages: dict[str, Percentiles]
    # By class, kind or size of request, where a scenario mixes several.
    groups: dict[str, Percentiles]
    series: list[Second]
    phases: list[Phase]
    batches: Batches | None
    server_cpu: float | None
    client_cpu: float
    server_rss_begin: float | None
    server_rss_end: float | None
    server_rss_peak: float | None
    # How late the generator itself was in sending, and how long one pass takes on an idle server.
    lateness: Percentiles | None
    pass_ms: float | None
    gates: list[Gate]
    # The median of the p99 of the stretches, of all good answers ("all") and of each group; seconds of disturbance leave it alone.
    typical_p99: dict[str, float] = {}
    # Cores that other processes of the machine used meanwhile: what they took may show in all times above.
    other_cpu: float | None = None
    # Where requests change on the way: the seconds from then until the server's drift detection was first seen to say so, looked at
    # every other second. Negative if it said so before; None if it never did.
    noticed_after: float | None = None


def read_result(path: Path) -> Result:
    """Read a result. Raises `ResultError`."""
    try:
        return Result.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ResultError(f"{path}: not the result of a load test: {place or 'the file'}: {first['msg']}") from error


def write_result(result: Result, path: Path) -> None:
    """Write a result as indented JSON. Raises `OSError`."""
    path.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
