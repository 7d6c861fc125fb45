"""What our HTTP protocol and the application tell each other of a request, in its scope. Other servers leave it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from starlette.types import ASGIApp

# The `Connection` that the request came on.
CONNECTION = "supportbot.connection"
# The `RequestError` to answer with, where the body broke off or is not HTTP.
FAULT = "supportbot.fault"
# The status of the answer, once it has begun.
STATUS = "supportbot.status"


class Connection(Protocol):
    """The connection of a request that is worked on. `on_lost` is called when the client leaves."""

    is_lost: bool
    on_lost: Callable[[], None] | None

    def body(self) -> bytes | None:
        """The request's whole body, which stays where it is; None while some of it is still to come."""

    def take_body(self) -> bytes | None:
        """The request's whole body; None while some of it is still to come."""

    def answer(self, status: int, headers: bytes, body: bytes) -> bool:
        """Write a whole answer: header lines, `Content-Length` among them, and the body.

        Returns False, with nothing written, when it must be sent as messages.
        """

    def start(self, app: ASGIApp) -> None:
        """Let an application answer the request that is worked on, in a task."""

    def expect_stream(self) -> None:
        """Let the request's body take as long as it will, and be as long: the application bounds it while it reads."""

    def break_off(self) -> None:
        """End the connection without the end of the answer that has begun, so that its client knows it to be incomplete.

        What was written before is sent first.
        """
