from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.observe.logs import configure_logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    filters = logging.getLogger("uvicorn.error").filters[:]
    yield
    logging.getLogger("uvicorn.error").filters[:] = filters
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_logs_are_one_object_a_line_from_both_kinds_of_logger(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.stdlib.get_logger("ours").info("an event", number=3)
    logging.getLogger("uvicorn.error").warning("%s happened", "it")
    try:
        int("a reason")
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("a failure")
    first, second, third = (orjson.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["event"], first["number"], first["level"], first["logger"]) == ("an event", 3, "info", "ours")
    assert first["timestamp"].endswith("Z")
    assert (second["event"], second["level"]) == ("it happened", "warning")
    assert "ValueError: invalid literal" in third["exception"]


def test_console_logs_are_for_people_and_the_level_holds(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning", "console")
    structlog.stdlib.get_logger("ours").info("unheard")
    structlog.stdlib.get_logger("ours").warning("heard", number=3)
    err = capsys.readouterr().err
    assert "unheard" not in err
    assert "heard" in err
    assert not err.startswith("{")


HOSTILE = "/\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202e\u2028end"
ESCAPED = r"/\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202e\u2028end"


def without_colors(line: str) -> str:
    """The line without the renderer's own colours."""
    return re.sub(r"\x1b\[\d+m", "", line)


def test_on_the_console_what_a_client_sent_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "console")
    structlog.stdlib.get_logger("ours").info("request", path=HOSTILE, more=[HOSTILE])
    logging.getLogger("uvicorn.error").warning("it was %s", HOSTILE)
    ours, theirs = map(without_colors, capsys.readouterr().err.splitlines())
    assert f"path={ESCAPED}" in ours
    assert f"it was {ESCAPED}" in theirs
    assert ours.isprintable()
    assert theirs.isprintable()


def test_a_traceback_on_the_console_keeps_its_lines_and_no_other_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("\x1b[2J of a client\x07")

    configure_logs("info", "console")
    try:
        fail()
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("a failure")
    lines = without_colors(capsys.readouterr().err).removesuffix("\n").split("\n")
    assert lines[-1] == r"ValueError: \x1b[2J of a client\x07"
    assert any('raise ValueError("' in line for line in lines)
    assert all(line.isprintable() for line in lines)


def test_json_keeps_what_a_client_sent(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.stdlib.get_logger("ours").info("request", path=HOSTILE)
    (line,) = capsys.readouterr().err.split("\n")[:-1]
    assert orjson.loads(line)["path"] == HOSTILE


def test_a_client_that_offers_an_upgrade_does_not_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    logger = logging.getLogger("uvicorn.error")
    protocol: Any = SimpleNamespace(logger=logger, _should_upgrade_to_ws=lambda: False)
    HttpToolsProtocol._unsupported_upgrade_warning(protocol)
    logger.warning("another warning")
    (line,) = capsys.readouterr().err.splitlines()
    assert orjson.loads(line)["event"] == "another warning"
