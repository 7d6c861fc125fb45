"""The id that ties an answer, its error body and its log line together: the client's own, or a new one."""

from __future__ import annotations

import random
import re

from starlette.types import Scope

HEADER = "X-Request-Id"
# What is safe to echo into a header and a log line. Anything else is replaced, not cleaned.
_ACCEPTABLE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_KEY = "supportbot.request_id"
_NAME = HEADER.lower().encode()
# An id is no secret. 128 bits of a generator that the system seeded are as unique as a UUID's, and cost no system call each.
_generator = random.Random()


def assign_request_id(scope: Scope) -> str:
    """Take the request's own id if it has an acceptable one, make one otherwise, and keep it in the scope."""
    given = b""
    for name, value in scope["headers"]:
        if name == _NAME:
            given = value
            break
    scope[_KEY] = request_id = given.decode("ascii") if given and _ACCEPTABLE.fullmatch(given) else new_request_id()
    return request_id


def new_request_id() -> str:
    """A new id: 32 hexadecimal digits."""
    return f"{_generator.getrandbits(128):032x}"


def request_id_of(scope: Scope) -> str:
    """The id that `assign_request_id` kept; empty where no request context surrounds the application."""
    return str(scope.get(_KEY, ""))
