from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.bundle import embedded_bundle
from server.settings import Settings, SettingsError, load_bundle, load_settings

pytestmark = pytest.mark.usefixtures("settings")  # a clean environment, an empty current folder


def test_defaults_are_those_of_the_design() -> None:
    settings = load_settings()
    policy = settings.batch_policy(cores=3)
    assert (settings.host, settings.port, settings.bundle) == ("127.0.0.1", 8000, embedded_bundle())
    assert (policy.window, policy.max_items, policy.idle_flush, policy.workers) == (0.040, 32, True, 3)


def test_the_environment_wins_over_the_env_file_and_both_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("PORT=9001\nWORKERS=2\nSOMETHING_ELSE=1\n", encoding="utf-8")
    monkeypatch.setenv("PORT", "9002")
    assert (load_settings().port, load_settings().batch_policy(8).workers) == (9002, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("WORKERS", "-1"),
        ("BATCH_WINDOW_MS", "nan"),
        ("BATCH_MAX_TEXTS", "0"),
        ("BATCH_IDLE_FLUSH", "perhaps"),
        ("LOG_LEVEL", "loud"),
        ("MAX_BODY_BYTES", "1.5"),
    ],
)
def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}={value}: "):
        load_settings()


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("WORKERS", "y")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(error.value).startswith("PORT=x: ")
    assert "\nWORKERS=y: " in str(error.value)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    Path(".env").write_text("".join(f"{name.upper()}=\n" for name in Settings.model_fields), encoding="utf-8")
    settings = load_settings()
    assert all(value == Settings.model_fields[name].default for name, value in settings)
    # Nor does it hide what the file has.
    Path(".env").write_text("BUNDLE=mine\n", encoding="utf-8")
    assert load_settings().bundle == Path("mine")


def test_an_env_file_that_cannot_be_read_is_an_error_and_not_passed_over() -> None:
    env = Path(".env")
    env.mkdir()
    with pytest.raises(SettingsError, match=r"^\.env: Is a directory$"):
        load_settings()
    env.rmdir()
    env.symlink_to("missing")
    with pytest.raises(SettingsError, match=r"^\.env: No such file or directory$"):
        load_settings()
    env.unlink()
    env.write_text("PORT=9001", encoding="utf-8")
    env.chmod(0)
    if not os.access(env, os.R_OK):  # root can read it
        with pytest.raises(SettingsError, match=r"^\.env: Permission denied$"):
            load_settings()
    env.unlink()
    env.symlink_to("/dev/null")  # a way to have none
    assert load_settings().port == 8000


def test_the_bundle_alone_is_read_as_it_is_with_all_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_bundle() == load_settings().bundle == embedded_bundle()
    Path(".env").write_text("BUNDLE=of-the-file\n", encoding="utf-8")
    assert load_bundle() == load_settings().bundle == Path("of-the-file")
    monkeypatch.setenv("BUNDLE", "of-the-environment")
    assert load_bundle() == load_settings().bundle == Path("of-the-environment")
    monkeypatch.setenv("LOG_LEVEL", "INFO")  # not ours, perhaps, and nothing to a command that does not serve
    assert load_bundle() == Path("of-the-environment")
    Path(".env").unlink()
    Path(".env").mkdir()
    with pytest.raises(SettingsError, match=r"^\.env: Is a directory$"):
        load_bundle()


def test_an_env_file_may_be_a_pipe() -> None:
    os.mkfifo(".env")
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(Path(".env").write_text, "PORT=9001\n", encoding="utf-8")
        assert load_settings().port == 9001
        written.result()


def test_limits_that_contradict_each_other_are_refused(settings: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError, match=r"MAX_TEXTS_PER_REQUEST \(32\) is over QUEUE_MAX_TEXTS \(8\)"):
        settings(queue_max_texts=8).batch_policy(1)
