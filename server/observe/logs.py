"""Structured logs on standard error: one line an event, JSON or for a terminal. uvicorn's own lines take the same shape."""

from __future__ import annotations

import asyncio
import logging
import sys
from io import StringIO
from typing import TextIO

import orjson
import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

# What uvicorn says and nobody needs to hear; the beginnings of its messages.
UNWANTED = (
    # Of every offer of another protocol. Ignoring an offer is right (RFC 9110, 7.8), WebSockets are not meant to be there, and a
    # client could fill the log. An offer that has to be refused has a line of our own.
    "Unsupported upgrade request",
    "No supported WebSocket library detected",
    # At the end of the process, about clients that did not finish their bodies or do not read their answers. That is no error of
    # the server: all that was accepted is finished, or there is an error line of our own. Each such request has its access line.
    "Cancel %s running task(s)",
)


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
            exception_formatter=_write_traceback
        )
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared, _without_color_message],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _unchanged if as_json else _escape_values,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("uvicorn.error").addFilter(_is_wanted)  # a second time changes nothing


def _is_wanted(record: logging.LogRecord) -> bool:
    # Tasks are cancelled at the end only; uvicorn has a traceback for those that had begun to answer.
    is_end = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not is_end and not str(record.msg).startswith(UNWANTED)


def _to_json(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()


def _unchanged(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return event


def _without_color_message(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)
    return event


def _escape_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Make text safe for a terminal. A client chooses the path of its request; JSON escapes it, the console's renderer does not."""
    return {key: _escape(value) if isinstance(value, str) else value for key, value in event.items()}


def _write_traceback(stream: TextIO, error: ExcInfo) -> None:
    """Write a traceback whose lines are escaped: an exception's message may quote what a client sent."""
    plain = StringIO()
    structlog.dev.plain_traceback(plain, error)
    stream.write("\n".join(map(_escape, plain.getvalue().split("\n"))))


def _escape(text: str) -> str:
    """The text with an escape sequence for each character that is not printable: controls, line breaks, marks of direction."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
