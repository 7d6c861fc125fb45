from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from loadtest.answers import LEFT, Answer, Reference
from loadtest.arrivals import poisson
from loadtest.plan import Plan
from loadtest.scenarios import CLOSED, HOT_TEXTS, KNOWN_EVERY, KNOWN_TEXTS, LONGEST_PATIENCE, SCENARIOS, Request, Scenario

SEED = 11
EVERY = [*SCENARIOS.values(), CLOSED]


def reference(scenario: Scenario) -> Reference:
    return Reference("m@1", frozenset({"a"}), {text: Answer(("a",), (0.5,)) for text in scenario.known_texts(SEED)})


def made(scenario: Scenario, count: int = 4000, seed: int = SEED) -> list[Request]:
    return list(islice(scenario.requests(seed, reference(scenario)), count))


def bodies(requests: list[Request]) -> Iterator[dict[str, Any]]:
    for request in requests:
        yield json.loads(request.body)


def texts(requests: list[Request]) -> list[str]:
    return [text for body in bodies(requests) for text in (body.get("texts") or [body["text"]])]


def test_tickets_come_as_html_from_the_middle_on() -> None:
    paces = SCENARIOS["drifting"].paces(capacity=200, seconds=4)
    plan = Plan("drifting", "http://127.0.0.1:9", SEED, paces, Reference(), Path("samples"))
    calls = list(plan.calls())
    assert plan.change == 2
    assert [moment for moment, _ in calls] == list(poisson(paces, SEED))
    assert [request.body.startswith(b'{"text":"<html>') for _, request in calls] == [moment >= 2 for moment, _ in calls]
    assert len({request.body for moment, request in calls if moment >= 2}) > 150


def test_there_are_those_of_the_table() -> None:
    names = "steady ramp burst soak mixed multi-text long hot-keys impatient overload drifting"
    assert list(SCENARIOS) == names.split()
    assert all(name == scenario.name for name, scenario in SCENARIOS.items())


@pytest.mark.parametrize("scenario", EVERY, ids=lambda scenario: scenario.name)
def test_requests_are_the_same_for_the_same_seed_and_well_formed(scenario: Scenario) -> None:
    requests = made(scenario, 500)
    assert requests == made(scenario, 500)
    assert requests != made(scenario, 500, seed=SEED + 1)
    assert {request.group for request in requests} == set(scenario.groups or [""])
    for request, body in zip(requests, bodies(requests), strict=True):
        assert len(request.expected) == len(body.get("texts", [None]))
        assert set(body) <= {"text", "texts", "priority", "timeout_ms"}


@pytest.mark.parametrize("scenario", [each for each in EVERY if each.name != "hot-keys"], ids=lambda scenario: scenario.name)
def test_texts_are_distinct_but_for_every_20th_which_is_known_and_comes_again_only_after_all_others(scenario: Scenario) -> None:
    known = set(scenario.known_texts(SEED))
    assert len(known) == KNOWN_TEXTS
    sent = texts(made(scenario))
    new = [text for text in sent if text not in known]
    assert len(set(new)) == len(new)
    places = [place for place, text in enumerate(sent, 1) if text in known]
    assert places == [place for place in range(1, len(sent) + 1) if place % KNOWN_EVERY == 0]
    in_turn = [sent[place - 1] for place in places]
    assert all(len(set(in_turn[begin : begin + KNOWN_TEXTS])) == KNOWN_TEXTS for begin in range(len(in_turn) - KNOWN_TEXTS))


@pytest.mark.parametrize("scenario", EVERY, ids=lambda scenario: scenario.name)
def test_exactly_the_known_texts_have_an_expected_answer(scenario: Scenario) -> None:
    requests, known = made(scenario, 1000), set(scenario.known_texts(SEED))
    expected = [answer for request in requests for answer in request.expected]
    assert [answer is not None for answer in expected] == [text in known for text in texts(requests)]


@pytest.mark.parametrize("scenario", EVERY, ids=lambda scenario: scenario.name)
def test_the_stated_number_of_texts_a_request_is_the_true_mean(scenario: Scenario) -> None:
    requests = made(scenario)
    assert math.isclose(len(texts(requests)) / len(requests), scenario.texts_per_request, rel_tol=0.05)


def test_rates_are_shares_of_the_capacity_in_texts_and_time_is_scaled() -> None:
    burst = SCENARIOS["burst"].paces(capacity=500, seconds=50)
    assert [pace.seconds for pace in burst] == [20, 10, 20]
    assert burst[1].rate == pytest.approx(10 * burst[0].rate) == pytest.approx(600)
    (several,) = SCENARIOS["multi-text"].paces(capacity=500, seconds=20)
    assert several.rate * SCENARIOS["multi-text"].texts_per_request == pytest.approx(250)
    (long,) = SCENARIOS["long"].paces(capacity=500, seconds=20)
    assert long.rate * SCENARIOS["long"].text_cost == pytest.approx(250)


def test_the_burst_is_ten_times_for_5_seconds_and_the_overload_three_times_the_capacity() -> None:
    quiet, burst, _ = SCENARIOS["burst"].steps
    assert (burst.seconds, burst.share / quiet.share) == pytest.approx((5, 10))
    assert SCENARIOS["overload"].steps[0].share == 3
    assert max(step.share for step in SCENARIOS["ramp"].steps) > 1


def test_hot_texts_repeat_by_rank_and_the_most_frequent_are_known() -> None:
    scenario = SCENARIOS["hot-keys"]
    counts = Counter(texts(made(scenario, 20_000)))
    assert len(counts) <= HOT_TEXTS
    first, second, third = (number for _, number in counts.most_common(3))
    assert 1.7 < first / second < 2.6
    assert second > third > 20_000 / HOT_TEXTS
    assert {text for text, _ in counts.most_common(30)} <= set(scenario.known_texts(SEED))


def test_bulk_requests_say_that_they_are_and_interactive_ones_are_single() -> None:
    requests = made(SCENARIOS["mixed"])
    by_group = {request.group: body for request, body in zip(requests, bodies(requests), strict=True)}
    assert by_group["bulk"]["priority"] == "bulk"
    assert set(by_group["interactive"]) == {"text"}
    assert 300 < sum(request.group == "bulk" for request in requests) < 500


def test_of_five_impatient_clients_one_has_a_deadline_and_one_leaves_early() -> None:
    scenario = SCENARIOS["impatient"]
    requests = made(scenario)
    leaving = [request for request in requests if request.leave_after < math.inf]
    deadlines = [body["timeout_ms"] for body in bodies(requests) if "timeout_ms" in body]
    assert 700 < len(leaving) < 900
    assert 700 < len(deadlines) < 900
    assert all(0 < request.leave_after <= LONGEST_PATIENCE for request in leaving)
    assert all(0 < deadline <= LONGEST_PATIENCE * 1000 for deadline in deadlines)
    assert scenario.expected == {"504", LEFT}


def test_only_where_clients_are_impatient_does_one_leave() -> None:
    others = [scenario for scenario in EVERY if scenario.name != "impatient"]
    assert all(request.leave_after == math.inf for scenario in others for request in made(scenario, 200))
