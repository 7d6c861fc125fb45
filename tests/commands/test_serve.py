"""`supportbot serve`: options for all settings, which win over the environment and `.env`; and the line that it prints."""

from __future__ import annotations

import re
import signal
from importlib import metadata
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from commands.cli import app
from commands.serve import shown_default
from server import serving
from server.settings import Settings, option_of
from tests.server.conftest import SUPPORTBOT, real_server, wait_until_ready

# For each setting a value other than its default, as the command line and the environment have it.
OTHER = {
    bool: "false",
    int: "7",
    float: "7.5",
    str: "other",
    Path: "/other",
}
SPECIAL = {"log_level": "error", "log_format": "json", "low_confidence": "0.25", "prediction_log_max_bytes": "70000"}
SPECIAL |= {"long_texts": "windows", "window_join": "max", "max_windows": "3"}
SPECIAL |= {"strip": "html", "drift_learn_texts": "700", "feedback_sample": "0.5"}
SPECIAL |= {"prediction_log_text": "true", "dialects": "tei, vllm", "aip_predict_route": "/predict", "aip_health_route": "/well"}
# Other settings that follow from one.
FOLLOW = {"aip_http_port": {"host", "port"}}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What `serve` would have served with."""
    given: list[Settings] = []

    def serve(settings: Settings) -> int:
        given.append(settings)
        return 0

    monkeypatch.setattr(serving, "serve", serve)
    return given


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def other_value(name: str, kind: object) -> str:
    return SPECIAL.get(name) or next(value for of, value in OTHER.items() if kind in {of, of | None})


def test_every_setting_but_secrets_is_an_option(served: list[Settings]) -> None:
    for name, field in Settings.model_fields.items():
        if field.annotation is SecretStr:
            assert run("serve", option_of(name), "a").exit_code == 2
            continue
        value = other_value(name, field.annotation)
        result = run("serve", option_of(name), value)
        assert result.exit_code == 0, result.output
        changed = {key for key, found in served.pop() if found != Settings.model_fields[key].default}
        assert changed == {name} | FOLLOW.get(name, set())


def test_the_help_has_every_option_with_its_default() -> None:
    text = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "400"}).output
    for name, field in Settings.model_fields.items():
        if field.annotation is SecretStr:
            assert option_of(name) not in text
            continue
        assert field.description
        said = (
            rf"{option_of(name)} +<[^\n]*{re.escape(field.description)} +│\n│ +\[default: \({re.escape(shown_default(field))}\)\]"
        )
        assert re.search(said, text), name


def test_options_win_over_the_environment_and_that_over_the_file(monkeypatch: pytest.MonkeyPatch, served: list[Settings]) -> None:
    Path(".env").write_text("PORT=9001\nWORKERS=1\nLOG_LEVEL=error\n", encoding="utf-8")
    monkeypatch.setenv("PORT", "9002")
    monkeypatch.setenv("WORKERS", "2")
    assert run("serve", "--port", "9003").exit_code == 0
    (settings,) = served
    assert (settings.port, settings.workers, settings.log_level) == (9003, 2, "error")


def test_a_wrong_value_names_the_option_or_the_variable_that_it_came_from(
    monkeypatch: pytest.MonkeyPatch, served: list[Settings]
) -> None:
    monkeypatch.setenv("WORKERS", "many")
    result = run("serve", "--port", "eighty", "--batch-max-texts", "0")
    assert result.exit_code == 2
    assert "--port=eighty: " in result.stderr
    assert "--batch-max-texts=0: " in result.stderr
    assert "WORKERS=many: " in result.stderr
    assert run("serve", "--prot", "80").exit_code == 2
    assert served == []


def test_an_empty_option_is_said_to_be_empty(served: list[Settings]) -> None:
    result = run("serve", "--bundle", "", "--prediction-log=")
    assert (result.exit_code, served) == (2, [])
    assert result.stderr == "error: --bundle=: must not be empty\n--prediction-log=: must not be empty\n"


def test_an_env_file_that_is_a_folder_stops_the_start(served: list[Settings]) -> None:
    Path(".env").mkdir()
    result = run("serve")
    assert (result.exit_code, result.stderr, served) == (2, "error: .env: Is a directory\n", [])


def test_the_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"supportbot {metadata.version('supportbot')}\n")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
    ],
)
def test_the_url_is_one_that_a_client_here_can_use(host: str, url: str) -> None:
    assert serving.url_of(host, 80) == url


def test_one_line_on_standard_output_says_where_and_what_and_its_curl_works(tmp_path: Path) -> None:
    with real_server(tmp_path, (SUPPORTBOT, "serve"), LOG_FORMAT="console") as server:
        assert server.popen.stdout is not None
        line = server.popen.stdout.readline()
        found = re.fullmatch(r"SupportBot serves (supportbot@[\d.]+) at (\S+) - try: curl (\S+) -d '(.+)'\n", line)
        assert found, line
        model, url, route, body = found.groups()
        assert (url, route) == (server.url, f"{server.url}/classify")
        # As curl sends it: with -d and no header, the content type is that of a form.
        answer = httpx2.post(route, content=body, headers={"Content-Type": "application/x-www-form-urlencoded"}).json()
        assert (answer["prediction"], answer["model"]) == ("billing", model)
        assert server.stop() == 0
        assert server.popen.stdout.read() == ""


# A finder of modules that stands still when the server's imports begin, or have come half way.
SLOW_IMPORT = """
import sys, time

class Slow:
    def find_spec(self, name, *_):
        if name == "{module}":
            print("importing, http://0.0.0.0:0", file=sys.stderr, flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Slow())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("module", ["typer", "server.serving"])
def test_a_signal_during_the_start_is_a_quiet_end(tmp_path: Path, number: signal.Signals, module: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT.format(module=module), encoding="utf-8")
    with real_server(tmp_path, (SUPPORTBOT, "serve"), PYTHONPATH=str(tmp_path)) as server:
        server.popen.send_signal(number)
        assert server.popen.wait(20) == 0
    assert server.log == ["importing, http://0.0.0.0:0\n"]


def test_with_logs_for_programs_there_is_no_line_for_people(tmp_path: Path) -> None:
    with real_server(tmp_path, (SUPPORTBOT, "serve", "--log-format", "json")) as server:
        wait_until_ready(server.url)
        assert server.stop() == 0
        assert server.popen.stdout is not None
        assert server.popen.stdout.read() == ""
