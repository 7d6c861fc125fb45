"""The clients of Triton and KServe, in their own environment, against the real server with the real model."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.server.conftest import real_server, wait_until_ready

Found: TypeAlias = dict[str, Any]
HERE = Path(__file__).parent
pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Found]]:
    """Runs a script of this folder with the server's URL and reads what it found."""
    python = (HERE.parent.parent / os.environ.get("CLIENTS", ".venv-clients") / "bin" / "python").absolute()

    def run(script: str) -> Found:
        command = [str(python), str(HERE / script), process.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        found: Found = json.loads(done.stdout.splitlines()[-1])
        return found

    with real_server(tmp_path_factory.mktemp("clients")) as process:
        wait_until_ready(process.url)
        yield run


def test_tritonclient(ask: Callable[[str], Found]) -> None:
    found = ask("with_tritonclient.py")
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, [True, True, False])
    assert "binary_tensor_data" in found["server"]["extensions"]
    assert found["model"]["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert found["repository"] == [{"name": "supportbot", "version": "1.2.0", "state": "READY", "reason": ""}]
    labels = ["billing", "technical", "general"]
    assert found["binary"] == {
        "id": "ticket-1",
        "labels": labels,
        "sums": [1.0] * 3,
        "shape": [3, 3],
        "truncated": [False] * 3,
        "dtype": "float32",
    }
    assert found["json"] == found["column"] == found["async"] == labels
    assert [row[0].split(":")[2] for row in found["classes"]] == labels
    assert [len(row) for row in found["classes"]] == [2, 2, 2]
    assert found["gzip"] == found["deflate"] == ["billing"] * 32
    assert found["unknown_model"] == ["404", "there is no model 'other' here, only 'supportbot@1.2.0'"]
    assert found["unknown_output"][0] == "422"
    assert found["unknown_output"][1].startswith("outputs: there is no 'classes'")
    assert found["no_such_route"] == ["404", "Not Found"]
    assert found["late"] == ["504", "the request's timeout came before its answer"]


def test_kserve(ask: Callable[[str], Found]) -> None:
    found = ask("with_kserve.py")
    second = found["v2"]
    assert (second["live"], second["ready"], second["model_ready"]) == (True, True, [True, False])
    assert second["labels"] == ["billing", "technical"]
    assert second["binary"] == {"id": "ticket-1", "labels": ["billing", "technical"], "sums": [1.0, 1.0]}
    assert second["unknown_model"][0] == 404
    assert second["unknown_model"][1].startswith("there is no model 'other' here")
    first = found["v1"]
    assert (first["live"], first["model_ready"]) == (True, True)
    assert [prediction["label"] for prediction in first["predictions"]] == ["billing", "technical"]
    assert first["wrong"][0] == 422
    assert first["wrong"][1].startswith("instances: must be a list")
