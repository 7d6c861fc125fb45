"""The bundle that a command works with: as it is given, else BUNDLE of the environment or of `.env`, in every command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from commands.cli import app
from models.bundle import embedded_bundle

# Each ends before it has done much: the folder is no bundle.
COMMANDS = {
    "serve": (),
    "classify": ("payment failed",),
    "verify": (),
    "tune": ("--seconds", "1"),
    "lengths": ("texts.txt", "--seconds", "0"),
    "capacity": ("--seconds", "5"),
}


def run(command: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, [command, *COMMANDS[command], *arguments])


@pytest.fixture(autouse=True)
def _folders(_default_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.serving.configure_logs", lambda *_: None)  # this process has other tests to run
    Path("no-bundle").mkdir()
    Path("texts.txt").write_text("payment failed\n", encoding="utf-8")


def test_these_are_all_commands_that_take_a_bundle() -> None:
    group: Any = typer.main.get_command(app)
    takers = {name for name, command in group.commands.items() if "bundle" in {parameter.name for parameter in command.params}}
    assert takers - {"build"} == set(COMMANDS)  # which makes one


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_that_of_the_settings_unless_it_is_given(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("BUNDLE=no-bundle\n", encoding="utf-8")
    assert_refuses(run(command))
    monkeypatch.setenv("BUNDLE", str(embedded_bundle()))
    given = ("no-bundle",) if command in {"verify", "tune"} else ("--bundle", "no-bundle")
    assert_refuses(run(command, *given))
    Path(".env").unlink()
    monkeypatch.setenv("BUNDLE", "no-bundle")
    assert_refuses(run(command))


def assert_refuses(result: Result) -> None:
    assert result.exit_code in {1, 2}
    assert "no-bundle" in result.stderr
    assert "manifest.json" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_one_is_said_to_be_empty(command: str) -> None:
    given = ("",) if command in {"verify", "tune"} else ("--bundle", "")
    result = run(command, *given)
    assert result.exit_code == 2
    assert "must not be empty" in result.stderr
    assert "bundle" in result.stderr


def test_what_is_given_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNDLE", "no-bundle")
    assert run("classify", "--bundle", str(embedded_bundle())).exit_code == 0


def test_an_env_file_that_cannot_be_read_is_wrong_usage() -> None:
    Path(".env").mkdir()
    result = run("classify")
    assert (result.exit_code, result.stderr) == (2, "error: .env: Is a directory\n")
