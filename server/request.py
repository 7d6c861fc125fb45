"""A request for answers, whatever the dialect that it came in."""

from __future__ import annotations

from dataclasses import dataclass

from batching import Priority
from server.http.errors import RequestError


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """A valid request: 1 or more non-blank texts; `single` if it used `text` and wants its answer in the singular.

    `timeout` is in seconds, None if the request names none.
    """

    texts: list[str]
    single: bool
    scores: bool
    timeout: float | None = None
    priority: Priority = Priority.INTERACTIVE


def blank_text(index: int, *, single: bool) -> RequestError:
    """The error for a text with nothing to classify in it."""
    return RequestError(422, "blank_text", f"{'text' if single else f'texts[{index}]'}: is blank")
