"""What any request may ask for, in its headers or its body: a timeout and a priority."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers

from batching import Priority
from server.http.errors import RequestError

TIMEOUT_HEADER: Final = "X-Timeout-Ms"
PRIORITY_HEADER: Final = "X-Priority"
_OPTION_HEADERS: Final = frozenset(name.lower().encode() for name in (TIMEOUT_HEADER, PRIORITY_HEADER))


@dataclass(frozen=True, slots=True)
class Options:
    """What headers may ask for: a timeout in seconds, a priority; None where they do not."""

    timeout: float | None = None
    priority: Priority | None = None


class BodyOptions(BaseModel):
    """The same in the body, for the dialects of others; fields that a dialect does not know are ignored, as others do."""

    model_config = ConfigDict(strict=True)

    timeout_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    priority: Literal["interactive", "bulk"] | None = None

    def options(self) -> Options:
        """These options, as the headers have them."""
        timeout = None if self.timeout_ms is None else self.timeout_ms / 1000
        return Options(timeout, None if self.priority is None else Priority(self.priority))


NO_OPTIONS: Final = Options()


def parse_options(headers: Headers) -> Options:
    """Parse the headers that may say what the body may say, too. Raises `RequestError`."""
    for name, _ in headers.raw:
        if name in _OPTION_HEADERS:
            return Options(_timeout(headers), _priority(headers))
    return NO_OPTIONS  # as nearly always


def _timeout(headers: Headers) -> float | None:
    value = _single(headers, TIMEOUT_HEADER)
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,6})?", value) or not float(value):
        raise RequestError(422, "invalid_field", f"{TIMEOUT_HEADER}: must be a number of milliseconds over 0")
    return float(value) / 1000


def _priority(headers: Headers) -> Priority | None:
    value = _single(headers, PRIORITY_HEADER)
    try:
        return None if value is None else Priority(value)
    except ValueError:
        raise RequestError(422, "invalid_field", f"{PRIORITY_HEADER}: must be interactive or bulk") from None


def _single(headers: Headers, name: str) -> str | None:
    values = headers.getlist(name)
    if len(values) > 1:
        raise RequestError(422, "invalid_field", f"{name}: is there {len(values)} times")
    return values[0] if values else None
