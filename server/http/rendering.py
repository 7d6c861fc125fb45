"""Python values to JSON responses."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from starlette.responses import Response


def render_json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response made by orjson."""
    return Response(orjson.dumps(content), status, dict(headers) if headers else None, "application/json")
