"""The id that ties an answer, its error body and its log line together: the client's own, or a new one."""

from __future__ import annotations

import re
import uuid

from starlette.types import Scope

HEADER = "X-Request-Id"
# What is safe to echo into a header and a log line. Anything else is replaced, not cleaned.
_ACCEPTABLE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_KEY = "supportbot.request_id"


def assign_request_id(scope: Scope) -> str:
    """Take the request's own id if it has an acceptable one, make one otherwise, and keep it in the scope."""
    wanted = HEADER.lower().encode()
    given = next((value for name, value in scope["headers"] if name == wanted), b"")
    scope[_KEY] = given.decode("ascii") if _ACCEPTABLE.fullmatch(given) else uuid.uuid4().hex
    return request_id_of(scope)


def request_id_of(scope: Scope) -> str:
    """The id that `assign_request_id` kept; empty where no request context surrounds the application."""
    return str(scope.get(_KEY, ""))
