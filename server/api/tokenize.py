"""`POST /tokenize` of text-embeddings-inference: texts are split into tokens.

It is admitted as other work is. It takes places in the queue, a long text several, and keeps them until its answer is on its way:
so what is in the server at once is bounded, in time and in memory. It is of class bulk, so that it takes no places from people who
wait, unless the request says otherwise. Texts are split one at a time, whoever sent them, so cores are left for others.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Final

import orjson
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from batching import DeadlineExceeded, Priority
from models.types import TextClassifier
from server.api.body import Texts, parse_json, validate
from server.api.exchange import Dialect
from server.api.operation import JSON, Operation
from server.api.options import BodyOptions, parse_options
from server.http.body import read_body, unless_disconnected
from server.http.errors import RequestError
from server.http.marks import DIALECT, ERROR_BODY, LOG, ROUTE
from server.service import Service

# For each, one place: it has about as many tokens as a text at the usual limit.
CHARACTERS_A_PLACE: Final = 2_000


class TeiToken(TypedDict):
    """A token; `start` and `stop` count characters of the text, null for special tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TokenizeBody(BodyOptions):
    """Texts to split into tokens."""

    inputs: Texts
    add_special_tokens: bool = True


class Tokenize:
    """The route. `error` is the type of the dialect's errors."""

    method = "POST"
    path = "/tokenize"

    def __init__(self, service: Service, dialect: Dialect, error: type) -> None:
        self.name = dialect.name
        self.operation = Operation(
            "Split texts into tokens",
            list[list[TeiToken]],
            error,
            TokenizeBody,
            {"inputs": "payment failed"},
            frozenset({400, 408, 413, 415, 422, 429, 503, 504}),
            "tokenize",
        )
        self._service = service
        self._dialect = dialect
        # A text that is being split when its client leaves keeps it until it is done: there is never a second one.
        self._thread = ThreadPoolExecutor(1, "tokenize")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or raise what `server.errors` has an answer for."""
        started = perf_counter()
        scope[DIALECT], scope[ROUTE], scope[ERROR_BODY] = self._dialect.name, self.path, self._dialect.error_body
        service, settings, request = self._service, self._service.settings, Request(scope, receive)
        options = parse_options(request.headers)
        patience = settings.body_timeout_ms / 1000
        content = await read_body(request, settings.max_body_bytes, patience, options.timeout or math.inf)
        classifier = service.classifier
        body = validate(TokenizeBody, parse_json(content))
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        if not texts:
            raise RequestError(400, "empty_texts", "inputs is empty; send at least one text")
        if len(texts) > settings.max_texts_per_request:
            message = f"{len(texts)} texts; at most {settings.max_texts_per_request} are allowed in one request"
            raise RequestError(400, "too_many_texts", message)
        scope[LOG] = {"texts": len(texts)}
        asked = body.options()
        timeout = asked.timeout or options.timeout or settings.default_timeout_ms / 1000
        deadline = started + min(timeout, settings.max_timeout_ms / 1000)
        places = sum(1 + len(text) // CHARACTERS_A_PLACE for text in texts)
        with service.reserved(places, asked.priority or options.priority or Priority.BULK):
            work = self._split(classifier, texts, deadline, special=body.add_special_tokens)
            await self._send(send, await unless_disconnected(request, work))

    async def _split(self, classifier: TextClassifier, texts: Sequence[str], deadline: float, *, special: bool) -> list[bytes]:
        """The tokens of each text, in JSON. Raises `DeadlineExceeded`, on time."""

        def split(text: str) -> bytes:
            return orjson.dumps(classifier.tokens(text, special=special))

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(deadline - perf_counter()):
                return [await loop.run_in_executor(self._thread, split, text) for text in texts]
        except TimeoutError as error:
            raise DeadlineExceeded from error

    async def _send(self, send: Send, lists: Sequence[bytes]) -> None:
        """Piece by piece, each as soon as the connection takes it: an answer is up to 35 times as long as its text."""
        pieces = [(b"," if index else b"[") + tokens for index, tokens in enumerate(lists)]
        pieces[-1] += b"]"
        headers = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % sum(map(len, pieces)))]
        if self._service.is_leaving:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
