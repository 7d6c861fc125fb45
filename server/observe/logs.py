"""Structured logs on standard error: one line an event, JSON or for a terminal. uvicorn's own lines take the same shape."""

from __future__ import annotations

import logging
import sys

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger


def configure_logs(level: str, log_format: str) -> None:
    """Set up structlog and the standard library's logging for this process; the arguments are LOG_LEVEL and LOG_FORMAT."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if as_json else _unchanged,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer = (
        structlog.processors.JSONRenderer(serializer=_to_json)
        if as_json
        else structlog.dev.ConsoleRenderer(
            # The default shows local variables, and so customers' texts.
            exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared, _without_color_message],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _to_json(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()


def _unchanged(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return event


def _without_color_message(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)
    return event
