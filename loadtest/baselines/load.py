"""Load on one system, by the light generator: at a rate, as much as it takes, one at a time, or known texts for their labels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice, permutations
from statistics import median
from time import perf_counter

import orjson
import uvloop

from loadtest.answers import OK, Reference, parse_answers
from loadtest.arrivals import Pace, poisson
from loadtest.corpus import WORDS, tickets
from loadtest.light import Server, closed_loop, open_loop
from loadtest.samples import Sample
from loadtest.scenarios import Request

# Opened before a run, as a client that has been running for a while has them; more are opened when all are in use.
CONNECTIONS = 32
# Seconds for a text whose label is asked for: nothing else is going on then.
LABEL_SECONDS = 20.0
# Nothing is known of right answers beforehand; that an answer is well-formed is checked.
NOTHING_KNOWN = Reference(exact=False)


def short_tickets() -> Iterator[str]:
    """Texts of about seven tokens, as in the article; none comes again before ten thousand others."""
    return (f"My {first} failed {second}" for first, second in cycle(permutations(dict.fromkeys(WORDS), 2)))


def offer(url: str, rate: float, seconds: float, seed: int, patience: float) -> list[Sample]:
    """Tickets at random moments (Poisson), `rate` a second on average; who has no answer after `patience` seconds leaves."""
    samples: list[Sample] = []
    calls = zip(poisson([Pace("", seconds, rate)], seed), _requests(tickets(seed), patience), strict=False)
    uvloop.run(open_loop(url, calls, NOTHING_KNOWN, samples.append, connections=CONNECTIONS))
    return samples


def saturate(url: str, texts: Iterator[str], clients: int, seconds: float) -> float:
    """Answers a second when so many clients send their next text as soon as the last is answered."""
    samples: list[Sample] = []
    begin = perf_counter()
    uvloop.run(closed_loop(url, _requests(texts, seconds), NOTHING_KNOWN, samples.append, clients=clients, seconds=seconds))
    end = begin + seconds
    return sum(sample.outcome == OK and sample.answered < end for sample in samples) / seconds


def alone(url: str, texts: Iterator[str], count: int, patience: float) -> float:
    """The median latency in seconds of so many texts, one after another."""
    samples: list[Sample] = []
    requests = _requests(islice(texts, count), patience)
    uvloop.run(closed_loop(url, requests, NOTHING_KNOWN, samples.append, clients=1))
    return median(sample.answered - sample.intended for sample in samples)


def labels(url: str, texts: Sequence[str], clients: int, patience: float = LABEL_SECONDS) -> list[str]:
    """The labels that the server gives to these texts, asked for by so many clients at once.

    Raises `TimeoutError` after `patience` seconds without an answer, `OSError` without a connection, `ValueError` for no answer.
    """
    return uvloop.run(_labels(url, texts, clients, patience))


def _requests(texts: Iterable[str], patience: float) -> Iterator[Request]:
    for text in texts:
        yield Request(orjson.dumps({"text": text}), leave_after=patience)


async def _labels(url: str, texts: Sequence[str], clients: int, patience: float) -> list[str]:
    server = Server.at(url)
    found: dict[int, str] = {}
    numbered = iter(enumerate(texts))

    async def one() -> None:
        with contextlib.closing(await server.connect()) as connection:
            for number, text in numbered:
                response = await connection.ask(server.content(orjson.dumps({"text": text})), patience)
                (answer,) = parse_answers(response.body)
                (found[number],) = answer.labels

    await asyncio.gather(*(one() for _ in range(clients)))
    return [found[number] for number in range(len(texts))]
