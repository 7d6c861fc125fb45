"""What the chaos test is made of: a model that takes its time, requests of every kind, and clients of every manner."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from models.fake import FakeClassifier
from models.types import Encoding, Prediction
from tests.server.api.dialects import SPOKEN, Json, Spoken

# In every text, and in whatever else the log must not show.
MARKER = "zebrafish"
POISON = "poison"
WORDS = {
    "billing": ("payment", "invoice", "refund", "charge"),
    "general": ("hello", "thanks", "question", "plan"),
    "technical": ("crash", "error", "bug"),
}

# The server's settings that the requests must know.
MAX_TEXTS = 32
MAX_BODY_BYTES = 64 * 1024
MAX_HEAD_BYTES = 64 * 1024
# Up to here the server tokenizes at once, so that a text whose client leaves has always been accepted before.
INLINE_CHARACTERS = 2000


class ChaosClassifier(FakeClassifier):
    """Takes as long as a real pass would, fails on a poison word, and tells all words apart, so that only equal texts coalesce."""

    def __init__(self) -> None:
        super().__init__(self._work)
        self._poison = self._token(POISON)

    def _work(self, encodings: Sequence[Encoding]) -> None:
        time.sleep(0.001 + 0.000_05 * sum(map(len, encodings)))
        if any(self._poison in encoding.ids for encoding in encodings):
            raise RuntimeError("the pass was poisoned")

    def _token(self, word: str) -> int:
        token = super()._token(word)
        if token != self.labels.index("general"):
            return token
        return len(self.labels) + int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())

    def _prediction(self, encoding: Encoding) -> Prediction:
        known = tuple(token if token < len(self.labels) else self.labels.index("general") for token in encoding.ids)
        return super()._prediction(Encoding(known, encoding.truncated))


# --- requests


@dataclass(frozen=True, slots=True)
class Ask:
    """One request as bytes, and all that may come of it.

    `name` is its X-Request-Id. `pieces` are sent with a pause after each; if it `leaves`, the client goes then, in a `reset` if so
    wished. `answers` are those that it may get, as "status code" or "200"; `drains` if also a 503 of the end. `labels` are those
    of its texts, `poisoned` the places of those that fail; `duplicates` have an equal one before them. `spoken` is its dialect if
    that is not our own.
    """

    name: str
    kind: str
    pieces: tuple[bytes, ...]
    answers: frozenset[str]
    drains: bool = True
    labels: tuple[str, ...] = ()
    poisoned: tuple[int, ...] = ()
    duplicates: int = 0
    single: bool = False
    priority: str = "interactive"
    pause: float = 0.0
    leaves: bool = False
    resets: bool = False
    spoken: Spoken | None = None


def head(name: str, *headers: str, start: str = "POST /classify HTTP/1.1") -> bytes:
    return "\r\n".join((start, "Host: chaos", f"X-Request-Id: {name}", *headers, "", "")).encode()


def post(name: str, body: bytes, *headers: str, start: str = "POST /classify HTTP/1.1") -> bytes:
    return head(name, f"Content-Length: {len(body)}", *headers, start=start) + body


def pieces_of(data: bytes, count: int) -> tuple[bytes, ...]:
    size = -(-len(data) // count)
    return tuple(data[at : at + size] for at in range(0, len(data), size))


SERVED = frozenset({"200", "429 queue_full"})
OTHERS = tuple(spoken for spoken in SPOKEN if spoken.name != "native")


class Plan:
    """Makes requests, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._recent: deque[tuple[str, str]] = deque(maxlen=20)
        self._numbers = itertools.count()

    def asks(self, count: int) -> list[Ask]:
        """So many, in the order in which they are to be sent; bursts of large requests among them."""
        return list(itertools.islice(self._endless(), count))

    def _endless(self) -> Iterator[Ask]:
        names = (f"ask-{number}" for number in itertools.count())
        kinds, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
        while True:
            for kind in self._random.choices(kinds, weights, k=1500):
                yield KINDS[kind][1](self, next(names), kind)
            for _ in range(40):
                yield self.burst(next(names), "burst")

    # One method for each kind; it is given the request's name and kind.

    def single(self, name: str, kind: str) -> Ask:
        extra = self._random.choice(((), ("Upgrade: h2c", "Connection: Upgrade"), (f"X-Customer: {MARKER}",)))
        return self._served(name, kind, 1, headers=extra, single=True)

    def in_another_dialect(self, name: str, kind: str) -> Ask:
        spoken = self._random.choice(OTHERS)
        body, facts = self._texts(self._random.randint(1, 8) if spoken.several else 1)
        content = json.dumps(spoken.body(json.loads(body)["texts"])).encode()
        data = post(name, content, start=f"POST {spoken.path} HTTP/1.1")
        return Ask(name, kind, (data,), SERVED, spoken=spoken, **facts)

    def multi(self, name: str, kind: str) -> Ask:
        return self._served(name, kind, self._random.randint(2, MAX_TEXTS), long=self._random.random() < 0.2)

    def burst(self, name: str, kind: str) -> Ask:
        return self._served(name, kind, MAX_TEXTS, **self._bulk() if self._random.random() < 0.5 else {})

    def bulk(self, name: str, kind: str) -> Ask:
        return self._served(name, kind, self._random.choice((1, 1, 1, 8)), **self._bulk())

    def urgent_in_the_body(self, name: str, kind: str) -> Ask:
        """The body's word outweighs the header's."""
        return self._served(name, kind, 1, headers=("X-Priority: bulk",), more={"priority": "interactive"})

    def deadline(self, name: str, kind: str) -> Ask:
        timeout = self._random.choice((self._random.randint(1, 20), self._random.randint(1, 500)))
        where: dict[str, Any] = self._random.choice(({"headers": (f"X-Timeout-Ms: {timeout}",)}, {"more": {"timeout_ms": timeout}}))
        answers = SERVED | {"504 deadline_exceeded", "504 deadline_unmeetable"}
        return self._served(name, kind, self._random.choice((1, 1, 1, 1, 5)), answers=answers, **where)

    def chunked(self, name: str, kind: str) -> Ask:
        body, facts = self._texts(1, single=True)
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces_of(body, 3)) + b"0\r\n\r\n"
        return Ask(name, kind, (head(name, "Transfer-Encoding: chunked") + chunks,), SERVED, **facts)

    def slow(self, name: str, kind: str) -> Ask:
        body, facts = self._texts(self._random.randint(1, 4))
        return Ask(name, kind, pieces_of(post(name, body), 4), SERVED, pause=self._random.uniform(0.001, 0.03), **facts)

    def too_slow(self, name: str, kind: str) -> Ask:
        body, _ = self._texts(1)
        return Ask(name, kind, (post(name, body)[:-5],), frozenset({"408 body_timeout"}))

    def poisoned(self, name: str, kind: str) -> Ask:
        return self._served(name, kind, 1, answers=frozenset({"500 model_failure", "429 queue_full"}), poisoned=(0,), single=True)

    def poisoned_among_others(self, name: str, kind: str) -> Ask:
        count = self._random.randint(2, MAX_TEXTS)
        places = tuple(sorted(self._random.sample(range(count), self._random.choice((1, 1, 2)))))
        return self._served(name, kind, count, answers=frozenset({"500 model_failure", "429 queue_full"}), poisoned=places)

    def leaves(self, name: str, kind: str) -> Ask:
        body, facts = self._texts(self._random.choice((1, 1, 8)))
        assert len(body) < INLINE_CHARACTERS
        return self._leaver(name, kind, post(name, body), facts)

    def leaves_in_the_body(self, name: str, kind: str) -> Ask:
        body, _ = self._texts(4)
        return self._leaver(name, kind, post(name, body)[: -self._random.randint(1, len(body))], {})

    def not_json(self, name: str, kind: str) -> Ask:
        body, _ = self._texts(1)
        return self._refused(name, kind, self._random.choice((body[:-1], b"", MARKER.encode())), "400 malformed_json")

    def wrong_type(self, name: str, kind: str) -> Ask:
        contents: tuple[object, ...] = (
            [MARKER],
            {"texts": MARKER},
            {"text": 1},
            {"texts": [MARKER, None]},
            {MARKER: 1},
            {},
            {"text": MARKER, "scores": 1},
        )
        return self._refused(name, kind, json.dumps(self._random.choice(contents)).encode(), "422 invalid_field")

    def blank(self, name: str, kind: str) -> Ask:
        contents = ({"text": ""}, {"text": " \n"}, {"texts": [MARKER, "\t"]})
        return self._refused(name, kind, json.dumps(self._random.choice(contents)).encode(), "422 blank_text")

    def no_texts(self, name: str, kind: str) -> Ask:
        return self._refused(name, kind, b'{"texts": []}', "400 empty_texts")

    def too_many_texts(self, name: str, kind: str) -> Ask:
        return self._refused(name, kind, json.dumps({"texts": [MARKER] * (MAX_TEXTS + 1)}).encode(), "400 too_many_texts")

    def unknown_route(self, name: str, kind: str) -> Ask:
        start = self._random.choice(("GET /classifier HTTP/1.1", f"GET /classify/?{MARKER} HTTP/1.1", "POST /Classify HTTP/1.1"))
        return Ask(name, kind, (post(name, b"{}", start=start),), frozenset({"404 not_found"}), drains=False)

    def wrong_method(self, name: str, kind: str) -> Ask:
        start = self._random.choice((f"GET /classify?text={MARKER} HTTP/1.1", "PUT /classify HTTP/1.1", "POST /health HTTP/1.1"))
        return Ask(name, kind, (post(name, b"", start=start),), frozenset({"405 method_not_allowed"}), drains=False)

    def health(self, name: str, kind: str) -> Ask:
        return Ask(name, kind, (head(name, start="GET /health HTTP/1.1"),), frozenset({"200"}), drains=False)

    def ready(self, name: str, kind: str) -> Ask:
        return Ask(name, kind, (head(name, start="GET /ready HTTP/1.1"),), frozenset({"200"}))

    def oversized(self, name: str, kind: str) -> Ask:
        body = (MARKER * MAX_BODY_BYTES)[: MAX_BODY_BYTES + self._random.choice((1, 50_000))].encode()
        return Ask(name, kind, (post(name, body),), frozenset({"413 body_too_large"}), drains=False)

    def not_http(self, name: str, kind: str) -> Ask:
        starts = (
            f"{MARKER}",
            "POST /classify HTTX/1.1",
            "GET /a b HTTP/1.1",
            "\x16\x03\x01\x02",
            "POST /classify HTTP/1.1\r\nContent-Length: x",
        )
        data = f"{self._random.choice(starts)}\r\n\r\n".encode()
        return Ask(name, kind, (data,), frozenset({"400 malformed_request"}), drains=False)

    def broken_chunk(self, name: str, kind: str) -> Ask:
        data = head(name, "Transfer-Encoding: chunked") + f"3\r\n{{}} \r\n{MARKER}\r\n".encode()
        return Ask(name, kind, (data,), frozenset({"400 malformed_request"}), drains=False)

    def large_head(self, name: str, kind: str) -> Ask:
        # Exactly one byte too many, so that the server has read all when it refuses: an answer after unread bytes may be lost.
        data = head(name, f"X-Customer: {MARKER * MAX_HEAD_BYTES}")[: MAX_HEAD_BYTES + 1]
        return Ask(name, kind, (data,), frozenset({"431 headers_too_large"}), drains=False)

    def _served(
        self,
        name: str,
        kind: str,
        count: int,
        *,
        answers: frozenset[str] = SERVED,
        headers: Iterable[str] = (),
        more: Mapping[str, object] | None = None,
        priority: str = "interactive",
        poisoned: tuple[int, ...] = (),
        single: bool = False,
        long: bool = False,
    ) -> Ask:
        body, facts = self._texts(count, more, poisoned, single=single, long=long)
        return Ask(name, kind, (post(name, body, *headers),), answers, priority=priority, poisoned=poisoned, **facts)

    def _refused(self, name: str, kind: str, body: bytes, answer: str) -> Ask:
        return Ask(name, kind, (post(name, body),), frozenset({answer}))

    def _leaver(self, name: str, kind: str, data: bytes, facts: Mapping[str, Any]) -> Ask:
        pause = self._random.choice((0.0, 0.0, self._random.uniform(0, 0.1)))
        return Ask(name, kind, (data,), SERVED, pause=pause, leaves=True, resets=self._random.random() < 0.5, **facts)

    def _bulk(self) -> dict[str, Any]:
        """How a client says that its request is not urgent."""
        where: dict[str, Any] = self._random.choice(({"headers": ("x-priority: bulk",)}, {"more": {"priority": "bulk"}}))
        return {"priority": "bulk", **where}

    def _texts(
        self,
        count: int,
        more: Mapping[str, object] | None = None,
        poisoned: Sequence[int] = (),
        *,
        single: bool = False,
        long: bool = False,
    ) -> tuple[bytes, dict[str, Any]]:
        """A body, and what is to be known of its texts."""
        pairs = [self._text(poisoned=place in poisoned, long=long) for place in range(count)]
        texts = [text for text, _ in pairs]
        content: dict[str, object] = {"text": texts[0]} if single else {"texts": texts}
        if self._random.random() < 0.1:
            content["scores"] = True
        facts = {"labels": tuple(label for _, label in pairs), "duplicates": count - len(set(texts)), "single": single}
        return json.dumps({**content, **(more or {})}).encode(), facts

    def _text(self, *, poisoned: bool, long: bool) -> tuple[str, str]:
        """A text and its label: a new one, or one that may be on its way already."""
        if self._recent and not poisoned and self._random.random() < 0.1:
            return self._random.choice(self._recent)
        label = self._random.choice(list(WORDS))
        words = [MARKER, f"n{next(self._numbers)}", self._random.choice(WORDS[label])]
        words += [
            self._random.choice(WORDS["general"])
            for _ in range(self._random.randint(20, 60) if long else self._random.randint(0, 9))
        ]
        text = " ".join([*words, POISON] if poisoned else words)
        if not poisoned and not long:
            self._recent.append((text, label))
        return text, label


KINDS: dict[str, tuple[int, Callable[[Plan, str, str], Ask]]] = {
    "single": (350, Plan.single),
    "in another dialect": (150, Plan.in_another_dialect),
    "multi": (60, Plan.multi),
    "bulk": (80, Plan.bulk),
    "urgent in the body": (20, Plan.urgent_in_the_body),
    "deadline": (150, Plan.deadline),
    "chunked": (20, Plan.chunked),
    "slow": (30, Plan.slow),
    "too slow": (8, Plan.too_slow),
    "poisoned": (20, Plan.poisoned),
    "poisoned among others": (12, Plan.poisoned_among_others),
    "leaves": (50, Plan.leaves),
    "leaves in the body": (25, Plan.leaves_in_the_body),
    "not JSON": (20, Plan.not_json),
    "wrong type": (20, Plan.wrong_type),
    "blank": (20, Plan.blank),
    "no texts": (8, Plan.no_texts),
    "too many texts": (8, Plan.too_many_texts),
    "unknown route": (20, Plan.unknown_route),
    "wrong method": (20, Plan.wrong_method),
    "health": (20, Plan.health),
    "ready": (10, Plan.ready),
    "oversized": (10, Plan.oversized),
    "not HTTP": (20, Plan.not_http),
    "broken chunk": (6, Plan.broken_chunk),
    "large head": (6, Plan.large_head),
}


# --- clients

# Who was refused does not come again at once, as all well-behaved clients; nor after the second or more that the server asks for.
BACK_OFF_SECONDS = 0.15

# What can come of a request besides an answer. Only LEFT is never a fault; REFUSED and CLOSED, without a byte of an answer, are
# none once the server was told to stop.
LEFT = "left"
REFUSED = "connection refused"
CLOSED = "connection closed"
TORN = "answer torn"
HUNG = "no answer in time"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client got: `what` is "status code" or "200", or one of the words above; `is_late` if after the signal to stop."""

    ask: Ask
    what: str
    is_late: bool
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Json = field(default_factory=dict)


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def close(self, *, reset: bool = False) -> None:
        with suppress(OSError):  # the server was first
            if reset:
                no_lingering = struct.pack("ii", 1, 0)
                self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
            self.writer.close()
            await self.writer.wait_closed()


class Crowd:
    """Many clients at once, each with a connection that it keeps as long as the server does, and one request at a time.

    When all but `late` requests have come to an end, `stop` is called.
    """

    def __init__(self, port: int, asks: Sequence[Ask], stop: Callable[[], None], *, late: int, patience: float) -> None:
        self.outcomes: list[Outcome] = []
        self._port = port
        self._asks = iter(asks)
        self._stop = stop
        self._signal_at = len(asks) - late
        self._patience = patience

    async def run(self, clients: int) -> None:
        await asyncio.gather(*(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        connection: _Connection | None = None
        for ask in self._asks:
            what, headers, body = HUNG, dict[str, str](), b""
            try:
                async with asyncio.timeout(self._patience):
                    if connection is None:
                        connection = _Connection(*await asyncio.open_connection("127.0.0.1", self._port))
                    what, headers, body = await self._ask(connection, ask)
            except TimeoutError:
                pass
            except OSError:
                what = REFUSED
            if connection is not None and (not headers or headers.get("connection") == "close"):
                await connection.close(reset=ask.resets)
                connection = None
            self._note(ask, what, headers, body)
            if what == "429":
                await asyncio.sleep(BACK_OFF_SECONDS)
        if connection is not None:
            await connection.close()

    @staticmethod
    async def _ask(connection: _Connection, ask: Ask) -> tuple[str, dict[str, str], bytes]:
        try:
            for piece in ask.pieces:
                connection.writer.write(piece)
                await connection.writer.drain()
                if ask.pause:
                    await asyncio.sleep(ask.pause)
            if ask.leaves:
                return LEFT, {}, b""
            start, *lines = (await connection.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            return start.split()[1], headers, await connection.reader.readexactly(int(headers["content-length"]))
        except asyncio.IncompleteReadError as error:
            return TORN if error.partial else CLOSED, {}, b""
        except OSError:
            return LEFT if ask.leaves else CLOSED, {}, b""

    def _note(self, ask: Ask, what: str, headers: Mapping[str, str], body: bytes) -> None:
        content: Json = json.loads(body) if body else {}
        if "error" in content:
            what = f"{what} {content['code'] if 'code' in content else content['error']['code']}"
        self.outcomes.append(Outcome(ask, what, len(self.outcomes) >= self._signal_at, headers, content))
        if len(self.outcomes) == self._signal_at:
            self._stop()
