"""A server of /classify that does what a test wants: lies, stalls, refuses, dies. It runs in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from loadtest.answers import Answer, Reference

LABELS = ("billing", "technical", "general")
TIMING = "tokenize;dur=0.100, queue;dur=0.200, inference;dur=2.000, total;dur=2.500"


@dataclass
class FakeServer:
    """Counts in `requests` what was asked, from 1; the answers to the numbers from `lies_from` on have a wrong label, say.

    `stall` is how long, in seconds, the whole server stands still at request number `stalls_at`, `stalled` from when to
    when that was, by `time.perf_counter`; `delay` is how long an answer takes.
    `accepted` counts connections, `abandoned` the requests whose client left before its answer.
    """

    lies_from: float = float("inf")
    drifts_from: float = float("inf")
    refuses_from: float = float("inf")
    dies_at: float = float("inf")
    stalls_at: float = float("inf")
    stall: float = 0.0
    delay: float = 0.0
    with_scores: bool = True
    metrics: str = ""
    requests: int = 0
    stalled: tuple[float, float] = (0.0, 0.0)
    accepted: int = 0
    abandoned: int = 0
    bodies: list[dict[str, object]] = field(default_factory=list)
    connections: set[asyncio.StreamWriter] = field(default_factory=set)

    def label(self, text: str) -> str:
        honest = LABELS[len(text) % 3]
        return LABELS[(len(text) + 1) % 3] if self.requests >= self.lies_from else honest

    def confidence(self, text: str) -> float:
        drift = 0.00001 if self.requests >= self.drifts_from else 0.0
        return 0.5 + len(text) % 40 / 100 + drift

    def reference(self, texts: list[str]) -> Reference:
        """What it would say if it were asked for these texts beforehand."""
        answers = {text: Answer((self.label(text),), (round(self.confidence(text), 6),)) for text in texts}
        return Reference("fake@1", frozenset(LABELS), answers, pass_ms=2.0)

    def answer(self, body: dict[str, object]) -> tuple[int, str]:
        if self.requests >= self.refuses_from:
            return 429, json.dumps({"error": {"code": "queue_full"}})
        if "text" in body:
            text = str(body["text"])
            content: dict[str, object] = {"prediction": self.label(text), "confidence": self.confidence(text), "model": "fake@1"}
            if body.get("scores") and self.with_scores:
                content["scores"] = dict.fromkeys(LABELS, 0.3)
            return 200, json.dumps(content)
        texts = body["texts"]
        assert isinstance(texts, list)
        predictions = [self.label(text) for text in texts]
        return 200, json.dumps({"predictions": predictions, "confidences": [self.confidence(text) for text in texts]})

    async def classify(self, body: dict[str, object]) -> bytes:
        self.requests += 1
        self.bodies.append(body)
        if self.requests == self.stalls_at:
            begin = time.perf_counter()
            time.sleep(self.stall)  # noqa: ASYNC251 - the event loop, and so the whole server, stands still
            self.stalled = begin, time.perf_counter()
        await asyncio.sleep(self.delay)
        status, content = self.answer(body)
        headers = f"Server-Timing: {TIMING}\r\n" if status == 200 else "Retry-After: 3\r\n"
        return response(status, content, headers)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        self.accepted += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                body = await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0))
                if self.requests + 1 >= self.dies_at:
                    break
                writer.write(await self._respond(head, body))
                if reader.at_eof() or writer.transport.is_closing():
                    self.abandoned += 1
                    break
                await writer.drain()
        self.connections.remove(writer)
        writer.transport.abort()

    async def _respond(self, head: str, body: bytes) -> bytes:
        if head.startswith("post /classify "):
            return await self.classify(json.loads(body))
        if head.startswith("get /ready "):
            return response(200, "{}")
        return response(200, self.metrics) if self.metrics and head.startswith("get /metrics ") else response(404, "{}")


def response(status: int, content: str, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\n{headers}Content-Length: {len(content.encode())}\r\n\r\n{content}".encode()


@contextmanager
def serving(fake: FakeServer) -> Iterator[str]:
    """The URL of the server while it runs."""
    loop, stopped, address = asyncio.new_event_loop(), asyncio.Event(), ""
    listening = threading.Event()

    async def serve() -> None:
        nonlocal address
        server = await asyncio.start_server(fake.connected, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        listening.set()
        await stopped.wait()
        server.close()
        for writer in fake.connections:
            writer.transport.abort()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert listening.wait(10)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(10)
        loop.close()
