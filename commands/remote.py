"""Classifying by a server elsewhere: rows in requests of 32 texts, over several connections, tried again where that is safe."""

from __future__ import annotations

import http.client
import json
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from models.bulk import Classified
from models.problem import problem_of
from models.tables import BadRow, Row

TEXTS: Final = 32
REQUEST_SECONDS: Final = 120.0
# Without an answer for so long, it is given up; between tries half a second, then 1, 2, 4 and up to 30, give or take a quarter.
PATIENCE_SECONDS: Final = 300.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
# Classifying twice is as good as once, so all of these may be tried again.
TRY_AGAIN: Final = frozenset({408, 429, 502, 503, 504})
_PLACE: Final = re.compile(r"^texts\[(\d+)\]")
_TOO_MANY: Final = frozenset({"too_many_texts", "body_too_large"})


class RemoteError(Exception):
    """Raised when the server cannot be asked, or goes on refusing; the message says what it said last."""


@dataclass(frozen=True, slots=True)
class _Refused(Exception):
    status: int
    code: str
    message: str


class RemoteClassifier:
    """A server at `url`. `classify` may be called from several threads; each has a connection of its own.

    `sleep` is for tests. Raises `RemoteError` when the server does not say what it is.
    """

    def __init__(self, url: str, *, scores: bool, strip: bool, sleep: Callable[[float], None] = time.sleep) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise RemoteError(f"{url}: must be like http://host:port")
        self._parts = parts
        self._url = url
        self._sleep = sleep
        self._options = {"priority": "bulk", "scores": scores} | ({"strip": "html"} if strip else {})
        self._connections = threading.local()
        self._opened: list[http.client.HTTPConnection] = []
        self._most_texts = TEXTS
        try:
            self._ask("GET", "/ready", None)  # a server that is just starting is waited for
            about = self._ask("GET", "/", None)
            self.identity, self.labels = str(about["model"]), tuple(map(str, about["labels"]))
            # Servers that do not say it know no other.
            self.answers = problem_of(about.get("problem_type", "single-label"), self.labels).columns
        except (KeyError, TypeError, ValueError) as error:
            self.close()
            raise RemoteError(f"{url}: not a SupportBot server with a model") from error
        except RemoteError:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        for connection in self._opened:
            connection.close()

    def classify(self, chunk: list[Row | BadRow]) -> list[Classified | BadRow]:
        """The rows' results, in their order. Raises `RemoteError`."""
        results: list[Classified | BadRow] = []
        rest = list(chunk)
        while rest:
            part, rest = rest[: self._most_texts], rest[self._most_texts :]
            results += self._part(part)
        return results

    def _part(self, rows: Sequence[Row | BadRow]) -> list[Classified | BadRow]:
        results: dict[int, Classified | BadRow] = {n: row for n, row in enumerate(rows) if isinstance(row, BadRow)}
        while asked := [n for n in range(len(rows)) if n not in results]:
            texts = [row.text for n in asked if isinstance(row := rows[n], Row)]
            try:
                answer = self._ask("POST", "/classify", {"texts": texts} | self._options)
            except _Refused as refused:
                place = _PLACE.match(refused.message)
                if place is not None and int(place[1]) < len(asked):
                    number = asked[int(place[1])]
                    results[number] = BadRow(rows[number].source, rows[number].line, refused.message[place.end() :].lstrip(": "))
                elif refused.code in _TOO_MANY and len(asked) > 1:
                    self._most_texts = max(1, len(rows) // 2)
                    half = len(rows) // 2
                    return self._part(rows[:half]) + self._part(rows[half:])
                elif refused.code == "body_too_large":
                    results[asked[0]] = BadRow(rows[asked[0]].source, rows[asked[0]].line, refused.message)
                else:
                    raise RemoteError(f"{self._url}: {refused.status} {refused.message}") from refused
                continue
            results |= self._results(rows, asked, answer)
        return [results[n] for n in range(len(rows))]

    def _results(self, rows: Sequence[Row | BadRow], asked: Sequence[int], answer: Any) -> dict[int, Classified | BadRow]:  # noqa: ANN401 - JSON
        if answer.get("model") != self.identity:
            raise RemoteError(f"{self._url}: the model was {self.identity}, and is {answer.get('model')} now")
        none = [False] * len(asked)
        told = (answer[name] for name in ("predictions", "confidences") if name in answer)
        records = [dict(zip(self.answers, each, strict=True)) for each in zip(*told, strict=True)]
        scores = answer.get("scores") or [{}] * len(asked)
        windows = answer.get("windows", [1] * len(asked))
        columns = (records, answer.get("truncated", none), answer.get("stripped", none), windows, scores)
        found: dict[int, Classified | BadRow] = {}
        for number, record, truncated, stripped, in_windows, shares in zip(asked, *columns, strict=True):
            row = rows[number]
            assert isinstance(row, Row)
            by_label = tuple(shares[name] for name in self.labels) if shares else ()
            found[number] = Classified(row, record, by_label, truncated, stripped, in_windows)
        return found

    def _ask(self, method: str, path: str, body: object) -> Any:  # noqa: ANN401 - JSON
        """The answer to a request. Raises `_Refused` for what asking again would not change, and `RemoteError`."""
        content = None if body is None else json.dumps(body).encode()
        deadline, pause = time.monotonic() + PATIENCE_SECONDS, FIRST_PAUSE
        while True:
            wait = pause * random.uniform(0.75, 1.25)
            try:
                status, headers, raw = self._once(method, path, content)
            except (OSError, http.client.HTTPException) as error:
                self._close()
                reason = (
                    f"{type(error).__name__}: {error}" if not isinstance(error, ConnectionRefusedError) else "connection refused"
                )
            else:
                if status == 200:
                    return self._parsed(raw)
                error_of = self._parsed(raw).get("error", {}) if raw.startswith(b"{") else {}
                refused = _Refused(status, str(error_of.get("code", "")), str(error_of.get("message", "")))
                if status not in TRY_AGAIN:
                    if body is None:
                        raise RemoteError(f"{self._url}: answers {status}; not a SupportBot server")
                    raise refused
                reason = f"{status} {refused.message}"
                if (asked := headers.get("Retry-After", "")).isdecimal():
                    wait = max(wait, int(asked) * random.uniform(1.0, 1.25))
            if time.monotonic() + wait > deadline:
                raise RemoteError(f"{self._url}: {reason}; tried for {PATIENCE_SECONDS:.0f} s")
            self._sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _parsed(self, raw: bytes) -> Any:  # noqa: ANN401 - JSON
        try:
            found = json.loads(raw)
        except ValueError as error:
            raise RemoteError(f"{self._url}: does not answer in JSON; not a SupportBot server") from error
        if not isinstance(found, dict):
            raise RemoteError(f"{self._url}: does not answer with an object; not a SupportBot server")
        return found

    def _once(self, method: str, path: str, content: bytes | None) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection: http.client.HTTPConnection | None = getattr(self._connections, "it", None)
        if connection is None:
            host, port = self._parts.hostname or "", self._parts.port
            if self._parts.scheme == "https":
                connection = http.client.HTTPSConnection(host, port, timeout=REQUEST_SECONDS, context=ssl.create_default_context())
            else:
                connection = http.client.HTTPConnection(host, port, timeout=REQUEST_SECONDS)
            self._connections.it = connection
            self._opened.append(connection)
        headers = {"Content-Type": "application/json"} if content is not None else {}
        connection.request(method, self._parts.path.rstrip("/") + path, content, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()

    def _close(self) -> None:
        connection = getattr(self._connections, "it", None)
        if connection is not None:
            connection.close()
            self._connections.it = None
