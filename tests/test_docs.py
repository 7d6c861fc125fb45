"""The README stays true: every setting and its default, every command, every make target, every link."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from commands.cli import app
from loadtest.scenarios import SCENARIOS
from models.bundle import embedded_bundle
from server.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def shown(value: object) -> str:
    if value is None or value == SecretStr(""):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Path):
        return "the embedded one"
    return str(value)


def test_every_setting_is_listed_with_its_default_and_no_other_is() -> None:
    listed = dict(re.findall(r"^\| `([A-Z_]+)` \| `?([^`|]*?)`? \|", README, re.MULTILINE))
    assert listed == {name.upper(): shown(field.default) for name, field in Settings.model_fields.items()}


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_every_make_target_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert {"serve", "test"} <= set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets


def test_every_command_is_in_the_readme() -> None:
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert commands == set(re.findall(r"\bsupportbot ([a-z]+)\b", README)) & commands
    assert commands


def test_every_scenario_of_the_load_tests_is_listed_and_no_other_is() -> None:
    table = README.partition("| scenario | is |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE) == list(SCENARIOS)


@pytest.mark.parametrize("file", ["README.md", "docs/batching.md", "docs/engine.md", "docs/ladder.md", "docs/performance.md"])
def test_every_relative_link_leads_somewhere(file: str) -> None:
    page = ROOT / file
    links = re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_batcher_s_example_is_ten_lines_and_prints_what_its_page_says() -> None:
    page = (ROOT / "docs" / "batching.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 10
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert f"It prints `{done.stdout.strip()}`." in page


@pytest.mark.parametrize("file", ["README.md", "models/supportbot/MODEL_CARD.md"])
def test_quoted_figures_are_those_of_the_manifest(file: str) -> None:
    from models.bundle import Bundle

    text = (ROOT / file).read_text(encoding="utf-8")
    sets = Bundle.open(embedded_bundle()).manifest.verification["sets"]
    assert isinstance(sets, dict)
    assert sets
    for name, row in sets.items():
        assert isinstance(row, dict)
        for kind in ("fp32", "bundle"):
            figures = row[kind]
            assert isinstance(figures, dict)
            line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
            for figure in ("accuracy", "macro_f1"):
                assert f"{figures[figure]:.4f}" in line
