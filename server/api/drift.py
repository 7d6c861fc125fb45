"""What operators ask of drift detection: its verdicts, its counts for who adds up replicas, and to take the present as normal."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from server.api.body import parse_json, validate
from server.api.operation import Operation
from server.http.body import read_body
from server.http.errors import RequestError
from server.http.rendering import render_json
from server.observe.drift import DriftError, DriftWatch
from server.service import Service

LONGEST_NOTE: Final = 500


class Note(BaseModel):
    """Why the present is normal; it is kept with the baseline."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    note: Annotated[str, Field(min_length=1, max_length=LONGEST_NOTE)]


class Accepted(TypedDict):
    """How many texts the new baseline has."""

    baseline_texts: int


REPORT: Final = Operation("Have texts, answers or errors changed?", dict[str, Any], errors=frozenset({503}))
COUNTS: Final = Operation(
    "Counts of drift detection by block, to add up replicas",
    dict[str, Any],
    errors=frozenset({404, 422, 503}),
    query={"since": "The number of the first block to tell"},
)
ACCEPT: Final = Operation(
    "Take the present as normal",
    Accepted,
    body=Note,
    errors=frozenset({400, 403, 404, 408, 409, 413, 415, 422, 503}),
)


class Drift:
    """The endpoints, thin: HTTP on one side, `DriftWatch` on the other."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def report(self, _: Request) -> Response:
        """All that drift detection has to tell; or that it is off, and why."""
        model = self._service.classifier.identity
        drift = self._service.drift
        if drift is None:
            return render_json({"model": model, "enabled": False, "reason": self._service.no_drift})
        return render_json({"model": model, "enabled": True} | await drift.report())

    async def counts(self, request: Request) -> Response:
        """The counts of closed blocks, from number `since` on."""
        since = request.query_params.get("since")
        if since is not None and not (since.isascii() and since.isdecimal() and len(since) < 16):
            raise RequestError(422, "invalid_field", "since: must be the number of a block")
        return render_json(await self._watch().counts(None if since is None else int(since)))

    async def accept(self, request: Request) -> Response:
        """Take what was counted since the last alarm or baseline as normal. From this machine only."""
        if not _is_local(request):
            raise RequestError(403, "forbidden", "the present can be accepted from this machine only")
        drift, settings = self._watch(), self._service.settings
        note = validate(Note, parse_json(await read_body(request, settings.max_body_bytes, settings.body_timeout_ms / 1000)))
        try:
            return render_json(Accepted(baseline_texts=await drift.accept(note.note)))
        except DriftError as error:
            raise RequestError(409, "too_few_texts", str(error)) from error

    def _watch(self) -> DriftWatch:
        """Raises `NotReady` before there is a model, and `RequestError` if drift is not watched."""
        self._service.readiness.check()
        if self._service.drift is None:
            raise RequestError(404, "drift_off", f"drift is not watched: {self._service.no_drift}")
        return self._service.drift


def _is_local(request: Request) -> bool:
    """Whether the other end is on this machine; a Unix socket has no address, and is."""
    try:
        return request.client is None or ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
