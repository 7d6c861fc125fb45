from __future__ import annotations

import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog

from server.observe.logs import configure_logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
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
