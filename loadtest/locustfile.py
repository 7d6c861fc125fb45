"""Locust: an open loop of requests at given moments, or a closed one of clients that wait for their answers; as a plan says.

Locust's users are closed loops: each waits for its answer. The open loop is therefore one user that starts every request at its
moment in a greenlet of its own, all from one pool of connections, and reports the latency from the intended start to Locust's own
statistics, too. The shape ends the test when the last request has ended, in the web UI as well.

It takes 0.36 ms of CPU a request. At 520 a second, with 0.19 cores in all, it sends them 0.14 ms late (p50) and 4.1 ms (p99), as
the light generator does beside the same busy server (AMD EPYC, 2026-11-25); it was not driven to its limit.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import gevent  # type: ignore[import-untyped]
from gevent.pool import Group  # type: ignore[import-untyped]
from gevent.socket import wait_read  # type: ignore[import-untyped]
from locust import FastHttpUser, LoadTestShape, constant, events, task
from locust.contrib.fasthttp import ResponseContextManager
from locust.exception import StopUser

from loadtest.answers import DISCONNECTED, LEFT, OK, TIMEOUT, judge
from loadtest.arrivals import Alarm
from loadtest.light import ANSWER_SECONDS
from loadtest.plan import PLAN_VARIABLE, read_plan
from loadtest.samples import Sample, SampleFile, Timing, parse_timing
from loadtest.scenarios import Request, find_scenario

LEAD_SECONDS = 0.3  # from Locust's start of a test to its first requests: its users are there by then
MAX_CONNECTIONS = 10_000

PLAN = read_plan(Path(os.environ[PLAN_VARIABLE]))
EXPECTED = find_scenario(PLAN.scenario).expected


class PlanShape(LoadTestShape):
    """As many users as the plan has clients, for its seconds; in an open loop one, until it has finished."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.finished = False

    def reset_time(self) -> None:
        """A test starts, the first or another by the web UI."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self.finished = False

    def tick(self) -> tuple[int, float] | None:
        """Locust asks every second; None ends the test."""
        ended = perf_counter() > self.start_time + PLAN.seconds if PLAN.clients else self.finished
        users = PLAN.clients or 1
        return None if ended else (users, users)


class PlanUser(FastHttpUser):
    """What both kinds of users share: sending one request."""

    abstract = True
    concurrency = MAX_CONNECTIONS
    network_timeout = ANSWER_SECONDS
    connection_timeout = ANSWER_SECONDS
    wait_time = constant(0)
    samples: SampleFile  # of the test that runs
    begin: float

    def on_start(self) -> None:
        """A jar of cookies costs time for each request, and there are none."""
        self.client.client.cookiejar = None

    def send(self, request: Request, intended: float | None = None) -> None:
        """Send a request that was to start at the moment `intended`, by default now, and take down what becomes of it."""
        sent = perf_counter()
        intended = sent if intended is None else intended
        with _patience(request.leave_after), self._post(request) as response:
            answered = perf_counter()
            outcome = _outcome(request, response, answered - sent)
            response.request_meta["response_time"] = (answered - intended) * 1000
            if outcome in EXPECTED:
                response.request_meta["name"] += f" {outcome}"
            if outcome == OK or outcome in EXPECTED:
                response.success()
            else:
                response.failure(outcome)
        status = response.status_code
        timing = parse_timing(_header(response, "server-timing")) if status else Timing()
        retry_after = _header(response, "retry-after") if status else ""
        self.samples(
            Sample(
                *(intended, sent, answered, status, outcome, len(request.expected), request.group),
                *timing,
                float(retry_after) if retry_after.isdigit() else None,
            )
        )

    def _post(self, request: Request) -> ResponseContextManager:
        headers = {"Content-Type": "application/json"}
        return self.client.post("/classify", data=request.body, headers=headers, catch_response=True)  # type: ignore[arg-type]


class OpenLoopUser(PlanUser):
    """Starts every request at its moment, whatever became of the earlier ones."""

    abstract = PLAN.clients > 0

    @task
    def send_all(self) -> None:
        """The whole plan."""
        pending = Group()
        with contextlib.closing(Alarm()) as alarm:
            for offset, request in PLAN.calls():
                moment = self.begin + offset
                if perf_counter() < moment:
                    alarm.set(moment)
                    wait_read(alarm.fileno())
                    alarm.clear()
                else:
                    gevent.sleep(0)
                pending.spawn(self.send, request, moment)
        pending.join()
        self.environment.shape_class.finished = True
        raise StopUser


class ClosedLoopUser(PlanUser):
    """Sends its next request when it was answered; all users share the plan's requests."""

    abstract = PLAN.clients == 0
    requests: Iterator[Request]

    @task
    def send_next(self) -> None:
        """One request."""
        self.send(next(self.requests))


def _patience(seconds: float) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext() if math.isinf(seconds) else gevent.Timeout(seconds)


def _outcome(request: Request, response: ResponseContextManager, waited: float) -> str:
    if response.status_code:
        return judge(response.status_code, response.content or b"", request.expected, PLAN.reference)
    if waited >= request.leave_after:
        return LEFT
    return TIMEOUT if waited >= ANSWER_SECONDS else DISCONNECTED


def _header(response: ResponseContextManager, name: str) -> str:
    return str(response.headers.get(name, "")) if response.headers else ""


def start(**_: object) -> None:
    """A test starts: a file for its samples, and requests from the beginning."""
    PlanUser.begin = perf_counter() + (0.0 if PLAN.clients else LEAD_SECONDS)
    PlanUser.samples = SampleFile(PLAN.samples, PlanUser.begin)
    ClosedLoopUser.requests = PLAN.requests()


def stop(**_: object) -> None:
    """A test ends."""
    PlanUser.samples.close()


events.test_start.add_listener(start)  # type: ignore[no-untyped-call]
events.test_stop.add_listener(stop)  # type: ignore[no-untyped-call]
