"""The load tests: what is sent, how fast, and what may come of it.

A rate is a share of the reference capacity: the texts a second that the server answers when 32 clients keep it busy with tickets. A
scenario's requests may hold several texts, and dearer ones, so that its share is one of the work, not of the number of requests.

Texts are distinct unless the scenario is about repeated ones. Every 20th is a known one, of which the right answer is known (see
`answers`); they come in turn, so that one comes again only after all others: seconds later, when the earlier is answered even by a
server with a full queue. Coalescing of equal texts therefore saves next to nothing here, and a cache of answers at most those 5 %.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, count, cycle, islice
from typing import Literal

import orjson

from loadtest.answers import LEFT, Answer, Reference
from loadtest.arrivals import Pace
from loadtest.corpus import long_tickets, tickets

Generator = Literal["locust", "light"]

KNOWN_TEXTS = 100
KNOWN_EVERY = 20
LARGEST_REQUEST = 16  # texts, of a request that has several
BULK_TEXTS = 8
BULK_SHARE = 0.1  # of the requests
HOT_TEXTS = 1000
ZIPF_EXPONENT = 1.1
INTERACTIVE, BULK = "interactive", "bulk"
FEW, MANY = f"1 to {LARGEST_REQUEST // 2} texts", f"over {LARGEST_REQUEST // 2} texts"
PATIENT, DEADLINE, LEAVING = "patient", "with a deadline", "leaves early"
LONGEST_PATIENCE = 0.1  # seconds, of an impatient client


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, and the answer expected to each text, None where it is not known.

    `leave_after` is for how many seconds the client waits for the answer before it closes the connection. `group` is the class that
    the request is counted in, beside the whole.
    """

    body: bytes
    expected: tuple[Answer | None, ...] = (None,)
    group: str = ""
    leave_after: float = math.inf


Requests = Callable[[int, Reference], Iterator[Request]]
Texts = Callable[[int], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of time, in seconds, at a share of the capacity."""

    name: str
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load test. `requests` makes its requests without end, from a seed and the known answers; `texts` the texts, known ones too.

    `texts_per_request` is their mean number, `text_cost` what a text costs in tickets. Outcomes that belong to the scenario are in
    `expected`, the classes of its requests, if any, in `groups`. With `later`, the requests of the last step are others, and the
    report says when the server's drift detection noticed. `settings` are those of a server that is started for the run.
    """

    name: str
    description: str
    steps: tuple[Step, ...]
    requests: Requests
    texts: Texts = tickets
    texts_per_request: float = 1.0
    text_cost: float = 1.0
    expected: frozenset[str] = frozenset()
    groups: tuple[str, ...] = ()
    generator: Generator = "locust"
    later: Requests | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long it takes by default."""
        return sum(step.seconds for step in self.steps)

    def known_texts(self, seed: int) -> list[str]:
        """The texts to ask for beforehand: none that a run with this seed sends as new."""
        return list(islice(self.texts(_known_seed(seed)), KNOWN_TEXTS))

    def paces(self, capacity: float, seconds: float) -> list[Pace]:
        """The rates of requests, given the capacity in texts a second, with all steps scaled to take so many seconds together."""
        stretch = seconds / self.seconds
        work = self.texts_per_request * self.text_cost
        return [Pace(step.name, step.seconds * stretch, step.share * capacity / work) for step in self.steps]


def _known_seed(seed: int) -> int:
    return seed + 500_000_000


def _mixed_in(fresh: Iterator[str], reference: Reference) -> Iterator[str]:
    """New texts, and every 20th a known one."""
    known = cycle(reference.answers)
    for number in count(1):
        yield next(known, "") if reference.answers and number % KNOWN_EVERY == 0 else next(fresh)


def _single(text: str, reference: Reference, group: str = "", leave_after: float = math.inf, **options: object) -> Request:
    return Request(orjson.dumps({"text": text} | options), reference.expected([text]), group, leave_after)


def _several(texts: list[str], reference: Reference, group: str = "", **options: object) -> Request:
    return Request(orjson.dumps({"texts": texts} | options), reference.expected(texts), group)


def _tickets(seed: int, reference: Reference) -> Iterator[Request]:
    for text in _mixed_in(tickets(seed), reference):
        yield _single(text, reference)


def _long(seed: int, reference: Reference) -> Iterator[Request]:
    for text in _mixed_in(long_tickets(seed), reference):
        yield _single(text, reference)


def _two_classes(seed: int, reference: Reference) -> Iterator[Request]:
    texts, chance = _mixed_in(tickets(seed), reference), random.Random(seed)
    while True:
        if chance.random() < BULK_SHARE:
            yield _several(list(islice(texts, BULK_TEXTS)), reference, BULK, priority="bulk")
        else:
            yield _single(next(texts), reference, INTERACTIVE)


def _multi_text(seed: int, reference: Reference) -> Iterator[Request]:
    texts, chance = _mixed_in(tickets(seed), reference), random.Random(seed)
    while True:
        size = chance.randint(1, LARGEST_REQUEST)
        yield _several(list(islice(texts, size)), reference, FEW if size <= LARGEST_REQUEST // 2 else MANY)


def _hot_keys(seed: int, reference: Reference) -> Iterator[Request]:
    # The most frequent come first, and so are the known ones.
    texts, chance = list(islice(tickets(_known_seed(seed)), HOT_TEXTS)), random.Random(seed)
    bounds = list(accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, HOT_TEXTS + 1)))
    while True:
        yield _single(texts[bisect(bounds, chance.random() * bounds[-1])], reference)


def _impatient(seed: int, reference: Reference) -> Iterator[Request]:
    texts, chance = _mixed_in(tickets(seed), reference), random.Random(seed)
    while True:
        kind, patience = chance.random(), chance.uniform(0.001, LONGEST_PATIENCE)
        if kind < 0.6:
            yield _single(next(texts), reference, PATIENT)
        elif kind < 0.8:
            yield _single(next(texts), reference, DEADLINE, timeout_ms=round(patience * 1000, 1))
        else:
            yield _single(next(texts), reference, LEAVING, patience)


def _as_html(seed: int, _: Reference) -> Iterator[Request]:
    for text in tickets(seed + 1):
        yield Request(orjson.dumps({"text": f"<html><body><div><p>{text}</p><br/></div></body></html>"}))


_STEADY_SECONDS = 20

_ALL = (
    Scenario(
        "steady", "single tickets at half the capacity", (Step("half the capacity", _STEADY_SECONDS, 0.5),), requests=_tickets
    ),
    Scenario(
        "ramp",
        "single tickets, from a fifth of the capacity in steps to beyond it",
        tuple(Step(f"{share} %", 5, share / 100) for share in (20, 40, 60, 70, 80, 90, 100, 120)),
        requests=_tickets,
        # The queue fills in the last steps; by how much the capacity was misjudged decides whether it overflows.
        expected=frozenset({"429"}),
        generator="light",
    ),
    Scenario(
        "burst",
        "single tickets, quiet but for 5 seconds at ten times the rate, beyond the capacity",
        (Step("quiet", 10, 0.12), Step("burst", 5, 1.2), Step("quiet again", 10, 0.12)),
        requests=_tickets,
    ),
    Scenario("soak", "single tickets at 70 % of the capacity for half an hour", (Step("70 %", 1800, 0.7),), requests=_tickets),
    Scenario(
        "mixed",
        f"interactive single tickets, and bulk requests of {BULK_TEXTS}, together 80 % of the capacity",
        (Step("80 %", _STEADY_SECONDS, 0.8),),
        requests=_two_classes,
        texts_per_request=1 + BULK_SHARE * (BULK_TEXTS - 1),
        groups=(INTERACTIVE, BULK),
    ),
    Scenario(
        "multi-text",
        f"requests of 1 to {LARGEST_REQUEST} tickets at half the capacity",
        (Step("half the capacity", _STEADY_SECONDS, 0.5),),
        requests=_multi_text,
        texts_per_request=(1 + LARGEST_REQUEST) / 2,
        groups=(FEW, MANY),
    ),
    Scenario(
        "long",
        "single texts of 128 to 256 tokens at half the capacity",
        (Step("half the capacity", _STEADY_SECONDS, 0.5),),
        requests=_long,
        texts=long_tickets,
        text_cost=5.5,
    ),
    Scenario(
        "hot-keys",
        f"single tickets of which the same {HOT_TEXTS} come again (Zipf, exponent {ZIPF_EXPONENT}), at 90 % of the capacity",
        (Step("90 %", _STEADY_SECONDS, 0.9),),
        requests=_hot_keys,
    ),
    Scenario(
        "impatient",
        "single tickets at 80 % of the capacity; of five clients one has a deadline of at most 100 ms, one leaves within 100 ms",
        (Step("80 %", _STEADY_SECONDS, 0.8),),
        requests=_impatient,
        expected=frozenset({"504", LEFT}),
        groups=(PATIENT, DEADLINE, LEAVING),
    ),
    Scenario(
        "overload",
        "single tickets at three times the capacity, then at 30 % of it",
        (Step("three times the capacity", 15, 3.0), Step("afterwards", 10, 0.3)),
        requests=_tickets,
        expected=frozenset({"429"}),
        generator="light",
    ),
    Scenario(
        "drifting",
        "single tickets at half the capacity, which come as HTML from the middle on",
        (Step("plain", _STEADY_SECONDS, 0.5), Step("as HTML", _STEADY_SECONDS, 0.5)),
        requests=_tickets,
        later=_as_html,
        # What is usual is learned within seconds, and judged each second.
        settings={"DRIFT_BLOCK_SECONDS": "1", "DRIFT_LEARN_TEXTS": "1000", "DRIFT_LEARN_DAYS": "0"},
    ),
)

SCENARIOS = {scenario.name: scenario for scenario in _ALL}

# Not an open load, and not one of the table: as many clients as USERS says, each of which sends when it was answered.
CLOSED = Scenario(
    "closed", "clients that send a ticket as soon as the last was answered", (Step("closed loop", 20, 1.0),), requests=_tickets
)


def find_scenario(name: str) -> Scenario:
    """The scenario of that name, the closed loop among them. Raises `KeyError`."""
    return CLOSED if name == CLOSED.name else SCENARIOS[name]
