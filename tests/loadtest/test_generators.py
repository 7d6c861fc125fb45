"""What both generators must do, each as the process that it is in a load test, against a server that misbehaves."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import uvloop

from loadtest.answers import Reference
from loadtest.arrivals import Pace, poisson
from loadtest.light import AskError, Server, ask, closed_loop, open_loop
from loadtest.plan import Plan
from loadtest.run import Target, _generate
from loadtest.samples import Sample, read_samples
from loadtest.scenarios import Generator, Request, find_scenario
from tests.loadtest.fake_server import LABELS, FakeServer, serving

SEED = 4
BOTH = pytest.mark.parametrize("generator", ["light", "locust"])


def run(
    generator: Generator, fake: FakeServer, scenario: str, folder: Path, rate: float = 200, seconds: float = 1.2, clients: int = 0
) -> tuple[list[Sample], Plan]:
    """The samples of a short run in the order of their intended starts."""
    with serving(fake) as url:
        reference = fake.reference(find_scenario(scenario).known_texts(SEED))
        plan = Plan(scenario, url, SEED, [Pace("", seconds, rate)], reference, folder / "samples", clients)
        _generate(plan, generator, Target(url), folder)
    return sorted(read_samples(plan.samples)[1]), plan


@BOTH
def test_latency_counts_from_the_intended_start_so_that_a_stall_is_felt_by_all_that_were_due_in_it(
    generator: Generator, tmp_path: Path
) -> None:
    fake = FakeServer(stalls_at=60, stall=0.3, dies_at=180)
    samples, plan = run(generator, fake, "steady", tmp_path)
    begin = read_samples(plan.samples)[0]
    assert [sample.intended - begin for sample in samples] == pytest.approx(list(poisson(plan.paces, SEED)), abs=1e-6)

    begin, end = fake.stalled
    due = [sample for sample in samples if begin <= sample.intended < end]
    # At 200 a second, some 60 are due while the server stands still: each waits for its end, and its latency says so.
    assert len(due) > 35
    assert all(sample.answered >= end for sample in due)

    # Then the server dies: all that were to come are there, as errors.
    outcomes = Counter(sample.outcome for sample in samples)
    assert set(outcomes) == {"ok", "disconnected"}
    assert outcomes["disconnected"] >= len(samples) - 180 > 0
    assert all(sample.status == 0 for sample in samples if sample.outcome == "disconnected")


@BOTH
def test_clients_that_leave_early_disconnect_and_wrong_labels_are_found(generator: Generator, tmp_path: Path) -> None:
    fake = FakeServer(delay=0.15, lies_from=120)
    samples, _ = run(generator, fake, "impatient", tmp_path)
    outcomes = Counter(sample.outcome for sample in samples)
    assert set(outcomes) == {"ok", "left", "wrong_label"}
    # One in five leaves within 100 ms, before any answer; the server has seen each of them go.
    assert outcomes["left"] == sum(sample.group == "leaves early" for sample in samples) == fake.abandoned > 0
    # Every 20th text is known, and the server lies about the second half.
    assert 1 <= outcomes["wrong_label"] <= 12
    served = [sample for sample in samples if sample.status == 200]
    assert {(sample.tokenize_ms, sample.queue_ms, sample.inference_ms, sample.total_ms) for sample in served} == {
        (0.1, 0.2, 2, 2.5)
    }


@BOTH
def test_a_closed_loop_has_as_many_in_flight_as_clients_and_sends_less_when_it_waits(generator: Generator, tmp_path: Path) -> None:
    samples, _ = run(generator, FakeServer(delay=0.05), "closed", tmp_path, seconds=1, clients=3)
    assert {sample.outcome for sample in samples} == {"ok"}
    assert 3 <= len(samples) <= 3 * (2.1 / 0.05)  # Locust may take a second longer to notice the end
    in_flight = [sum(other.sent <= sample.sent < other.answered for other in samples) for sample in samples]
    assert max(in_flight) == 3


def light(fake: FakeServer, scenario: str = "steady", requests: int = 60) -> list[Sample]:
    """An open loop in this process, as a library."""
    samples: list[Sample] = []

    reference = fake.reference(find_scenario(scenario).known_texts(SEED))
    made = find_scenario(scenario).requests(SEED, reference)
    calls = [(number / 400, next(made)) for number in range(requests)]
    with serving(fake) as url:
        uvloop.run(open_loop(url, calls, reference, samples.append))
    return sorted(samples)


def test_a_confidence_that_drifts_is_found() -> None:
    samples = light(FakeServer(drifts_from=1))
    assert Counter(sample.outcome for sample in samples) == {"ok": 57, "wrong_confidence": 3}


def test_refusals_are_their_status_with_when_to_come_again() -> None:
    samples = light(FakeServer(refuses_from=41))
    assert Counter(sample.outcome for sample in samples) == {"ok": 40, "429": 20}
    assert {(sample.status, sample.retry_after) for sample in samples} == {(200, None), (429, 3.0)}


def test_the_light_generator_needs_nothing_beyond_what_the_server_needs() -> None:
    missing = ("locust", "gevent", "hdrh", "psutil", "matplotlib", "jinja2")
    code = f"import sys; sys.modules.update(dict.fromkeys({missing})); import loadtest.light, loadtest.plan, loadtest.corpus"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_connections_are_kept_and_used_again() -> None:
    fake = FakeServer(delay=0.02)
    assert {sample.outcome for sample in light(fake, requests=100)} == {"ok"}
    assert 2 <= fake.accepted < 50


def test_a_server_that_is_not_there_is_an_error_for_each_request() -> None:
    with serving(FakeServer()) as url:
        pass
    samples: list[Sample] = []
    request = Request(b"{}")
    uvloop.run(open_loop(url, [(0.0, request), (0.01, request)], Reference(), samples.append))
    uvloop.run(closed_loop(url, [request] * 3, Reference(), samples.append, clients=2))
    assert [sample.outcome for sample in samples] == ["disconnected"] * 5


def test_asking_gives_labels_answers_the_model_and_the_time_of_a_pass() -> None:
    fake = FakeServer()
    with serving(fake) as url:
        reference = uvloop.run(ask(url, ["one", "three"]))
    assert reference.labels == set(LABELS)
    assert list(reference.answers) == ["one", "three"]
    assert reference == fake.reference(["one", "three"])
    assert (reference.model, reference.pass_ms) == ("fake@1", 2.0)


def test_a_server_without_scores_or_without_an_answer() -> None:
    with serving(FakeServer(with_scores=False)) as url:
        assert uvloop.run(ask(url, ["one"])).labels == frozenset()
    with serving(FakeServer(refuses_from=0)) as url, pytest.raises(AskError, match="429 to a known text"):
        uvloop.run(ask(url, ["one"]))
    with pytest.raises(AskError, match="no answer to a known text"):
        uvloop.run(ask(url, ["one"]))


@pytest.mark.parametrize(
    ("url", "port", "path"),
    [("http://h", 80, b"/classify"), ("http://h:81/", 81, b"/classify"), ("https://h/a/", 443, b"/a/classify")],
)
def test_the_url_says_where_to(url: str, port: int, path: bytes) -> None:
    server = Server.at(url)
    assert (server.host, server.port) == ("h", port)
    assert server.content(b"{}").startswith(b"POST " + path + b" HTTP/1.1\r\nHost: h")


@pytest.mark.parametrize("url", ["", "h:80", "ftp://h", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be the URL"):
        Server.at(url)
