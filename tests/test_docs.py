"""The documentation stays true: settings, commands, make targets, routes, errors, links, examples and quoted figures."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from commands.cli import app
from commands.serve import shown_default
from loadtest.baselines.comparison import MOSEC, OURS, read_comparison
from loadtest.scenarios import SCENARIOS
from models.bundle import Bundle, embedded_bundle
from models.classifier import Classifier
from models.fake import FakeClassifier
from models.problem import PROBLEM_TYPES, MultiLabel, OneLabel, Regression
from server.api.open_inference import OUTPUTS
from server.app import create_app, dialect_endpoints
from server.observe.metrics import ROUTES
from server.service import Service
from server.settings import DIALECTS, Settings
from tests.server.conftest import real_server, running, until, wait_until_ready
from tests.server.profiled import Profiled

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "deploy" / "README.md", *sorted(DOCS.glob("*.md")))
}
EVERYTHING = "\n".join(PAGES.values())
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def page(name: str) -> str:
    return PAGES[f"docs/{name}"]


def blocks(text: str) -> Iterator[str]:
    """The lines of all code blocks, continued lines joined."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


def table(text: str, header: str) -> list[list[str]]:
    """The cells of the table that begins with this header line."""
    rows = text.partition(f"\n{header}\n")[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("index", ["README.md", "docs/README.md"])
def test_every_page_is_in_both_indexes(index: str) -> None:
    linked = set(re.findall(r"\]\((?:docs/)?([a-z-]+\.md)\)", PAGES[index]))
    assert {path.name for path in DOCS.glob("*.md")} - {"README.md"} <= linked
    assert "deploy/README.md)" in PAGES[index]


def test_every_setting_is_listed_with_its_default_and_meaning_and_no_other_is() -> None:
    listed = re.findall(r"^\| `([A-Z_]+)` \| `([^`]*)` \| (.*) \|$", page("settings.md"), re.MULTILINE)
    fields = Settings.model_fields
    assert sorted(listed) == sorted((name.upper(), shown_default(field), field.description) for name, field in fields.items())
    for name, field in fields.items():
        if field.annotation is SecretStr:
            assert f"`{name.upper()}` has no option" in page("settings.md")


def test_every_setting_that_a_page_names_exists() -> None:
    # In capitals, with an underscore: nothing else in these pages looks so, but for what is listed.
    named = set(re.findall(r"\b(?<!-)[A-Z]+(?:_[A-Z]+)+\b", EVERYTHING))
    others = {"PIP_EXTRA_INDEX_URL", "OPENBLAS_CORETYPE", "MODEL_CARD", "UI_PORT", "SO_REUSEPORT"}
    assert named - others <= {name.upper() for name in Settings.model_fields}


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", EVERYTHING, re.MULTILINE))
    assert {"serve", "test"} <= named <= targets
    assert set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE)) >= {"serve", "test"}


def command_lines() -> list[tuple[str, str]]:
    return [(name, line) for name, text in PAGES.items() for line in blocks(text) if re.search(r"\bsupportbot [a-z]", line)]


@pytest.mark.parametrize(("name", "line"), command_lines())
def test_every_command_line_in_a_code_block_is_one_that_the_command_accepts(name: str, line: str) -> None:
    words = shlex.split(line.rpartition(" | ")[2].partition(" > ")[0], comments=True)
    assert "supportbot" in words, name
    arguments, command = words[words.index("supportbot") + 1 :], typer.main.get_command(app)
    subcommand = "supportbot"
    while hasattr(command, "commands"):
        subcommand, *arguments = arguments
        command = command.commands[subcommand]
    command.make_context(subcommand, arguments)


def test_every_command_and_its_page() -> None:
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert commands <= set(re.findall(r"\bsupportbot ([a-z]+)\b", EVERYTHING))
    assert commands


def test_every_python_module_that_a_page_runs_exists() -> None:
    named = set(re.findall(r"python -m ([a-z_.]+)", EVERYTHING))
    assert {"benchmarks.engine", "benchmarks.http_ceiling"} <= named
    assert [module for module in named if not (ROOT / f"{module.replace('.', '/')}.py").exists() and module != "pytest"] == []


def test_every_scenario_of_the_load_tests_is_listed_and_no_other_is() -> None:
    assert [row[0].strip("`") for row in table(page("load-tests.md"), "| scenario | is |")] == list(SCENARIOS)


def test_every_option_of_the_load_tests_is_listed_and_no_other_is() -> None:
    listed = {row[0].strip("`") for row in table(page("load-tests.md"), "| variable | default | meaning |")}
    read = re.findall(r'"([A-Z_]+)"', (ROOT / "loadtest" / "options.py").read_text(encoding="utf-8"))
    assert listed == set(read)


def test_every_route_is_listed_and_no_other_is() -> None:
    listed = [row[0].strip("`").split() for row in table(page("api.md"), "| route | answers |")]
    assert {path for _, path in listed} == ROUTES


def test_every_dialect_s_route_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    rows = table(page("dialects.md"), "| request | dialect | setting | clients |")
    assert [row[2].strip("`") for row in rows[1:]] == [name for name in DIALECTS if name != "native"]
    paths = {path.replace("MODEL", "{model}") for row in rows for path in re.findall(r"(?:GET|POST) (/[^`]*)", row[0])}
    served = {
        endpoint.path
        for endpoint in dialect_endpoints(
            Service(Settings(dialects="all", aip_predict_route=None, aip_health_route=None), FakeClassifier)
        )
    }
    assert paths - {"/classify"} == {path for path in served if not path.startswith("/v2") and "/versions/" not in path}
    assert "`/v2/...`" in page("dialects.md")


def test_every_output_of_the_open_inference_protocol_is_listed() -> None:
    rows = table(page("dialects.md"), "| output | datatype, shape | is |")
    assert [row[0].strip("`") for row in rows] == list(OUTPUTS)


def test_every_problem_type_is_listed() -> None:
    rows = table(page("problem-types.md"), "| problem type | scores | answer |")
    assert [row[0].strip("`") for row in rows] == list(PROBLEM_TYPES)


def test_every_error_code_is_listed_with_its_status() -> None:
    listed = {(status, code) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", page("api.md"), re.MULTILINE)}
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "server").rglob("*.py"))
    raised = set(re.findall(r"(?:RequestError|self\._refuse)\(\s*(\d{3}), \"(\w+)\"", sources))
    assert len(raised) > 15
    assert raised - listed == {("499", "client_closed_request")}  # to nobody
    codes = {code for _, code in listed}
    assert {code for code in codes if f'"{code}"' not in sources} == {"not_found", "method_not_allowed"}  # named by the status


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@pytest.mark.parametrize("name", PAGES)
def test_every_relative_link_leads_somewhere(name: str) -> None:
    for link in re.findall(r"\]\((?!http)([^)\s]+)\)", PAGES[name]):
        target, _, anchor = link.partition("#")
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), link


def test_the_batcher_s_example_is_ten_lines_and_prints_what_its_page_says() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", page("batching.md"), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 10
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert f"It prints `{done.stdout.strip()}`." in page("batching.md")


def test_the_example_of_drift_detection_is_ten_lines_and_prints_what_its_page_says() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", page("drift.md"), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 10
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert f"It prints `{done.stdout.strip()}`." in page("drift.md")


NEW = {"feedback_token", "review", "request_id", "id", "created"}


def like(found: object, shown: object) -> bool:
    """The same but for numbers, which depend on the CPU, and what is new in each answer."""
    if isinstance(shown, dict) and isinstance(found, dict):
        return found.keys() == shown.keys() and all(key in NEW or like(found[key], shown[key]) for key in shown)
    if isinstance(shown, list) and isinstance(found, list):
        return len(found) == len(shown) and all(map(like, found, shown))
    if isinstance(shown, float) and isinstance(found, float):
        return shown > 1 or abs(found - shown) < 0.05  # over 1 it is a time
    return found == shown


async def test_every_request_that_a_page_shows_is_answered_as_it_shows(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    shown = re.findall(r"^\$ curl localhost:8000(/[\w/:]*)(?: -d '(.*)')?\n(.*)$", EVERYTHING, re.MULTILINE)
    assert len(shown) == EVERYTHING.count("\n$ curl localhost") >= 6
    application, service = create_app(Settings(drain_linger_ms=0), lambda: classifier)
    transport = httpx2.ASGITransport(application)
    async with service.running(), httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        await until(service.is_ready)
        for path, body, answer in shown:
            response = await (client.post(path, content=body) if body else client.get(path))
            assert like(response.json(), json.loads(answer)), (path, body, response.text)


async def test_a_long_text_is_answered_as_its_page_shows(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words, times, answer = re.findall(r"printf '(.*)%\.0s' \$\(seq (\d+)\)\)\\\"}\"\n(.*)$", page("api.md"), re.MULTILINE)[0]
    async with running(Settings(drain_linger_ms=0, long_texts="windows"), lambda: classifier) as application:  # type: ignore[arg-type, return-value]
        response = await application.client.post("/classify", json={"text": words * int(times)})
    assert like(response.json(), json.loads(answer)), response.text


async def test_every_answer_of_another_problem_type_is_as_its_page_shows_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = re.findall(r"^\$ curl -s localhost:8000(/[\w/:]*) -d '(.*)'\n(.*)$", page("problem-types.md"), re.MULTILINE)
    multi, one, regression = MultiLabel(("billing", "spam", "technical")), OneLabel(("toxic",)), Regression(("stars",))
    for (path, body, answer), problem in zip(shown, (multi, multi, one, regression), strict=True):
        async with running(Settings(drain_linger_ms=0), lambda problem=problem: FakeClassifier(problem=problem)) as application:  # type: ignore[misc]
            response = await application.client.post(path, content=body)
        assert response.json() | {"latency_ms": 0} == json.loads(answer) | {"latency_ms": 0}


def test_the_stream_that_the_page_shows_is_answered_as_it_shows(tmp_path: Path) -> None:
    section = page("api.md").partition("\n## A stream of lines\n")[2]
    body, command, answer = re.findall(
        r"^\$ cat tickets.ndjson\n(.*?)^\$ (curl .*?)\n(.*?)^```", section, re.MULTILINE | re.DOTALL
    )[0]
    (tmp_path / "tickets.ndjson").write_text(body, encoding="utf-8")
    with real_server(tmp_path) as server:
        wait_until_ready(server.url)
        words = [word.replace("localhost:8000", server.url) for word in shlex.split(command)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert like([json.loads(line) for line in done.stdout.splitlines()], [json.loads(line) for line in answer.splitlines()])


async def test_every_metric_is_listed_and_no_other_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    text = ""
    for model in (Profiled, lambda: FakeClassifier(problem=OneLabel(("toxic",)))):
        async with running(Settings(drain_linger_ms=0, prediction_log=tmp_path / "log.jsonl"), model) as application:
            await application.client.post("/classify", json={"text": "payment failed"})
            await application.client.get("/drift")  # counts what was classified just now
            text += (await application.client.get("/metrics")).text
    there = {
        f"{family.name}_total" if family.type == "counter" else f"{family.name}_info" if family.type == "info" else family.name
        for family in text_string_to_metric_families(text)
        if family.name.startswith("supportbot_")
    }
    assert set(re.findall(r"supportbot_[a-z_]+", page("operating.md"))) == there


@pytest.mark.parametrize("file", ["docs/models.md", "models/supportbot/MODEL_CARD.md"])
def test_quoted_figures_are_those_of_the_manifest(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    for name, row in manifest_sets().items():
        line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        for kind in ("fp32", "bundle"):
            for figure in ("accuracy", "macro_f1"):
                assert f"{row[kind][figure]:.4f}" in line


def manifest_sets() -> dict[str, Any]:
    sets = Bundle.open(embedded_bundle()).manifest.verification["sets"]
    assert isinstance(sets, dict)
    assert sets
    return sets


def test_the_readme_s_figures_are_those_of_their_pages() -> None:
    figures = {row[0]: f"{row[1]}; {row[2]}" for row in table(README, "| figure | SupportBot | for comparison |")}
    assert len(figures) == 5
    found = read_comparison(DOCS / "performance.json")
    highest, half, single, engine, accuracy = figures.items()

    def median(system: str, value: Callable[[Any], float | None]) -> str:
        spread = found.spread(system, "half", value)
        assert spread is not None
        return f"{spread.middle:.1f}"

    def alone(system: str) -> str:
        spread = found.alone_spread(system, lambda one: one.ticket_ms)
        assert spread is not None
        return f"{spread.middle:.1f}"

    rates = [round(found.highest_rate(system).middle) for system in (OURS, MOSEC, "no-batching", "usual-recipe")]
    assert re.findall(r"\d+", highest[1]) == list(map(str, rates))
    assert f"{found.bound_ms:.0f} ms" in highest[0]
    assert f"({round(found.rate('half'))} texts/s)" in half[0]
    p50_p99 = [
        median(system, value) for system in (OURS, MOSEC, "no-batching") for value in (lambda one: one.p50, lambda one: one.p99)
    ]
    assert re.findall(r"[\d.]+", half[1]) == p50_p99
    assert re.findall(r"[\d.]+", single[1]) == [alone(OURS), alone(MOSEC), alone("no-batching")]
    ladder = dict(re.findall(r"^\| (\w+) \|[^|]*\| ([\d.]+) \|", page("ladder.md").partition("short text:")[0], re.MULTILINE))
    assert re.findall(r"\d\d?\.\d\d", engine[1]) == [ladder["9"], ladder["1"], ladder["5"]]
    held_out = manifest_sets()["tickets, test"]
    assert re.findall(r"0\.\d{4}", accuracy[1]) == [f"{held_out[kind]['accuracy']:.4f}" for kind in ("bundle", "fp32")]
    measured = Bundle.open(embedded_bundle()).manifest.verification["against_fp32"]
    assert isinstance(measured, dict)
    assert f"{float(str(measured['label_match'])) * 100:.2f}% of {measured['texts']:,} texts" in accuracy[1]


def test_the_layout_is_that_of_the_import_contract() -> None:
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    floors = next(contract["layers"] for contract in configured["contracts"] if "the floors" in contract["name"])
    rows = table(page("development.md"), "| floor | folder | is | may import |")
    layout: dict[int, set[str]] = {}
    for floor, folder, *_ in rows:
        layout.setdefault(int(floor), set()).add(folder.strip("`/"))
    assert [layout[floor] for floor in sorted(layout, reverse=True)] == [set(floor.split(" | ")) for floor in floors]
    assert {folder for floor in floors for folder in floor.split(" | ")} == set(configured["root_packages"])
