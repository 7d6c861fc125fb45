"""The contract: valid, complete, with examples that work; and kept, whatever a client sends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.routing import Route

from models.classifier import Classifier
from server.api import docs
from server.api.openapi import PATH
from server.app import create_app
from server.settings import Settings
from tests.server.conftest import real_server, running, until, wait_until_ready

SettingsMaker = Callable[..., Settings]
Json: TypeAlias = dict[str, Any]
# What the contract promises, whatever a client sends. That the server takes all that the schemas allow is not promised: a text may
# have no token, say.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "15"))
# The model's name is known, and a deadline of a millisecond may well be answered 504.
CONFIGURATION = """
[parameters]
"path.model" = "supportbot"
"path.version" = "1.2.0"

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "504"]
"""
# A body of lines is a string to the contract, and so to schemathesis.
HOOKS = """
import json
import schemathesis

@schemathesis.serializer("application/x-ndjson")
def to_lines(context, value):
    return (value if isinstance(value, str) else json.dumps(value)).encode(errors="replace")

@schemathesis.deserializer("application/x-ndjson")
def from_lines(context, response):
    return response.content.decode()
"""


@pytest.fixture
async def client(settings: SettingsMaker, classifier: Classifier) -> AsyncIterator[httpx2.AsyncClient]:
    app, service = create_app(settings(aip_predict_route="/vertex", aip_health_route="/well"), lambda: classifier)
    async with service.running(), httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        await until(service.is_ready)
        yield client


@pytest.mark.parametrize("dialects", ["all", "native", "vllm", "kserve", "open-inference,tei"])
async def test_it_is_valid_and_has_every_route(settings: SettingsMaker, dialects: str) -> None:
    async with running(settings(dialects=dialects)) as app:
        document = (await app.client.get(PATH)).json()
        OpenAPIV31SpecValidator(document).validate()
        starlette: Any = app.app
        while not isinstance(starlette, Starlette):
            starlette = starlette.app
        routes = {(method, route.path) for route in starlette.routes if isinstance(route, Route) for method in route.methods or ()}
        described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
        # The contract and its page are no part of it.
        shown = {(method, path) for method, path in routes if path not in {PATH, docs.PATH, docs.FILE_PATH}}
        assert described == {(method, path) for method, path in shown if method != "HEAD"}


def resolved(document: Json, schema: Json) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": document["components"]})


def conforming(document: Json, operation: Json, response: httpx2.Response) -> None:
    described = operation["responses"][str(response.status_code)]
    media = response.headers.get("content-type", "").partition(";")[0]
    optional = {"X-Stripped", "X-Truncated", "Retry-After", *(("Server-Timing",) if media == "application/x-ndjson" else ())}
    for name in described["headers"]:
        assert name in response.headers or name in optional
    if "content" in described:
        schema = described["content"][media]["schema"]
        if media == "application/json":
            resolved(document, schema).validate(response.json())
    else:
        assert response.content == b""


async def test_every_example_works_and_is_answered_as_the_contract_says(client: httpx2.AsyncClient) -> None:
    document = (await client.get(PATH)).json()
    tried = 0
    for path, methods in document["paths"].items():
        url = path.format(model="supportbot", version="1.2.0")
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                response = await client.request(method, url)
                assert response.status_code == 200, (path, response.text)
                conforming(document, operation, response)
                continue
            for example in content["examples"].values():
                resolved(document, content["schema"]).validate(example["value"])
                response = await client.request(method, url, json=example["value"])
                assert response.status_code == 200, (path, response.text)
                conforming(document, operation, response)
                tried += 1
            refused = await client.request(method, url, json={"nothing": "of use"})
            assert refused.status_code == 422
            conforming(document, operation, refused)
    assert tried >= 12


async def test_the_example_of_a_stream_works_and_its_lines_are_as_the_contract_says(client: httpx2.AsyncClient) -> None:
    document = (await client.get(PATH)).json()
    operation = document["paths"]["/classify"]["post"]
    asked, answered = (
        part["content"]["application/x-ndjson"] for part in (operation["requestBody"], operation["responses"]["200"])
    )
    resolved(document, asked["x-itemSchema"]).validate(json.loads(asked["example"]))
    headers = {"Content-Type": "application/x-ndjson"}
    response = await client.post("/classify", content=asked["example"] + '{"text": ""}\n', headers=headers)
    assert response.status_code == 200
    conforming(document, operation, response)
    good, bad = map(json.loads, response.text.splitlines())
    for line in (good, bad):
        resolved(document, answered["x-itemSchema"]).validate(line)
    assert (good["prediction"], bad["error"]["code"]) == ("billing", "blank_text")


async def test_what_differs_from_the_contract_would_be_noticed(client: httpx2.AsyncClient) -> None:
    document = (await client.get(PATH)).json()
    answer = document["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert resolved(document, answer).is_valid([{"label": "a", "score": 0.5}])
    assert not resolved(document, answer).is_valid([{"label": "a", "score": "0.5"}])
    error = document["paths"]["/predict"]["post"]["responses"]["422"]["content"]["application/json"]["schema"]
    assert not resolved(document, error).is_valid({"error": {"message": "a"}})


def test_whatever_a_client_sends_the_contract_is_kept(tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION, encoding="utf-8")
    (tmp_path / "hooks.py").write_text(HOOKS, encoding="utf-8")
    with real_server(tmp_path, ACCESS_LOG="false") as process:
        wait_until_ready(process.url)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{process.url}{PATH}"),
                *("--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing"),
                *("--mode", "all", "--seed", "1", "--suppress-health-check", "all"),
            ],
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
            capture_output=True,
            text=True,
            timeout=60 + EXAMPLES * 2,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        (cases,) = re.findall(r"(\d+) generated, \1 passed", done.stdout)
        assert int(cases) > 1000
        assert process.stop() == 0
