"""The Open Inference Protocol: tensors as JSON and as bytes, the choice of outputs, and what its clients ask besides."""

from __future__ import annotations

import gzip
import json
import math
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.tensors import HEADER, TensorError, join_strings, split_strings
from server.settings import Settings
from tests.server.conftest import Application, running

SettingsMaker = Callable[..., Settings]
INFER = "/v2/models/fake/infer"


@pytest.fixture
async def app(settings: SettingsMaker) -> AsyncIterator[Application]:
    async with running(settings(max_texts_per_request=64)) as application:
        yield application


def body(*texts: str, shape: Sequence[int] | None = None, **fields: object) -> dict[str, Any]:
    tensor = {"name": "text", "shape": list(shape or [len(texts)]), "datatype": "BYTES", "data": list(texts)}
    return {"inputs": [tensor], **fields}


def binary(*texts: str, size: int | None = None, **fields: object) -> tuple[bytes, dict[str, str]]:
    """(content, headers) of a request with a binary input."""
    raw = join_strings(texts)
    parameters = {"binary_data_size": len(raw) if size is None else size}
    tensor = {"name": "args", "shape": [len(texts), 1], "datatype": "BYTES", "parameters": parameters}
    head = json.dumps({"inputs": [tensor], **fields}).encode()
    return head + raw, {HEADER: str(len(head))}


def outputs(response: httpx2.Response) -> dict[str, Any]:
    """The outputs by their names: data, or the bytes behind the JSON part."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get(HEADER, len(response.content)))
    head, raw = json.loads(response.content[:length]), response.content[length:]
    found: dict[str, Any] = {}
    for output in head["outputs"]:
        if "data" in output:
            found[output["name"]] = output["data"]
        else:
            size = output["parameters"]["binary_data_size"]
            found[output["name"]], raw = raw[:size], raw[size:]
    assert raw == b""
    return found


async def test_texts_in_json_are_answered_with_four_tensors_in_json(app: Application) -> None:
    response = await app.client.post(INFER, json=body("payment", "hello", id="t-1"))
    assert response.json() == {
        "model_name": "fake",
        "model_version": "1",
        "id": "t-1",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["billing", "general"]},
            {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.8, 0.8]},
            {"name": "probabilities", "datatype": "FP32", "shape": [2, 3], "data": [0.8, 0.1, 0.1, 0.1, 0.8, 0.1]},
            {"name": "truncated", "datatype": "BOOL", "shape": [2], "data": [False, False]},
        ],
    }
    assert HEADER not in response.headers


@pytest.mark.parametrize("data", [["a", "b"], [["a"], ["b"]]])
@pytest.mark.parametrize("shape", [[2], [2, 1]])
async def test_a_batch_may_have_a_second_dimension(app: Application, data: list[Any], shape: list[int]) -> None:
    tensor = {"name": "whatever", "shape": shape, "datatype": "BYTES", "data": data, "parameters": {"content_type": "str"}}
    assert outputs(await app.client.post(INFER, json={"inputs": [tensor]}))["label"] == ["general", "general"]


async def test_binary_in_and_binary_out(app: Application) -> None:
    content, headers = binary("payment", "a " * 257, "\u00fcber crash", parameters={"binary_data_output": True})
    response = await app.client.post(INFER, content=content, headers=headers)
    assert response.headers["content-type"] == "application/octet-stream"
    found = outputs(response)
    assert split_strings(found["label"]) == [b"billing", b"general", b"technical"]
    assert struct.unpack("<3f", found["score"]) == pytest.approx([0.8] * 3)
    assert struct.unpack("<9f", found["probabilities"]) == pytest.approx([0.8, 0.1, 0.1, 0.1, 0.8, 0.1, 0.1, 0.1, 0.8])
    assert found["truncated"] == b"\0\1\0"


async def test_an_output_s_own_wish_beats_the_request_s(app: Application) -> None:
    wishes = [{"name": "score", "parameters": {"binary_data": False}}, {"name": "label"}]
    found = outputs(await app.client.post(INFER, json=body("a", outputs=wishes, parameters={"binary_data_output": True})))
    assert found == {"score": [0.8], "label": join_strings(["general"])}
    wishes = [{"name": "score", "parameters": {"binary_data": True}}, {"name": "label"}]
    found = outputs(await app.client.post(INFER, json=body("a", outputs=wishes)))
    assert found == {"score": struct.pack("<f", 0.8), "label": ["general"]}


async def test_outputs_are_those_that_were_chosen_and_logits_only_then(app: Application) -> None:
    found = outputs(await app.client.post(INFER, json=body("payment", outputs=[{"name": "logits"}])))
    assert list(found) == ["logits"]
    assert found["logits"] == pytest.approx([math.log(0.8), math.log(0.1), math.log(0.1)], abs=1e-6)


@pytest.mark.parametrize(
    ("count", "classes"), [(1, ["0.800000:0:billing"]), (9, ["0.800000:0:billing", "0.100000:1:general", "0.100000:2:technical"])]
)
async def test_classification_names_the_highest_classes(app: Application, count: int, classes: list[str]) -> None:
    wish = {"name": "probabilities", "parameters": {"classification": count}}
    response = await app.client.post(INFER, json=body("payment", "refund", outputs=[wish]))
    (output,) = response.json()["outputs"]
    assert (output["datatype"], output["shape"], output["data"]) == ("BYTES", [2, len(classes)], classes * 2)


async def test_a_raw_request_is_one_text(app: Application) -> None:
    response = await app.client.post(INFER, content=join_strings(["app crash"]), headers={HEADER: "0"})
    assert outputs(response)["label"] == ["technical"]


async def test_compressed_requests_and_answers(app: Application) -> None:
    content, headers = binary(*["payment"] * 50, parameters={"binary_data_output": True})
    for coding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        both = headers | {"Content-Encoding": coding, "Accept-Encoding": f"br, {coding};q=0.5"}
        response = await app.client.post(INFER, content=pack(content), headers=both)
        assert (response.headers["content-encoding"], response.headers["vary"]) == (coding, "Accept-Encoding")
        assert split_strings(outputs(response)["label"]) == [b"billing"] * 50
    for accepted in ("identity", "gzip;q=0", "br", ""):
        response = await app.client.post(INFER, content=content, headers=headers | {"Accept-Encoding": accepted})
        assert "content-encoding" not in response.headers
        assert split_strings(outputs(response)["label"]) == [b"billing"] * 50
    small = await app.client.post(INFER, json=body("a"), headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers


@pytest.mark.parametrize(("priority", "bulk"), [(0, 0), (1, 0), (2, 1), (255, 1)])
async def test_priorities_over_1_are_bulk(app: Application, priority: int, bulk: int) -> None:
    assert (await app.client.post(INFER, json=body("a", parameters={"priority": priority}))).status_code == 200
    seen = app.service.statistics()
    assert seen is not None
    assert (seen.accepted, seen.accepted_bulk) == (1, bulk)


async def test_a_timeout_is_in_microseconds_and_0_is_none(app: Application) -> None:
    assert (await app.client.post(INFER, json=body("a", parameters={"timeout": 1}))).status_code == 504
    for timeout in (0, 20_000_000):
        assert (await app.client.post(INFER, json=body("a", parameters={"timeout": timeout}))).status_code == 200


def changed(**fields: object) -> dict[str, Any]:
    return {"inputs": [body("a")["inputs"][0] | fields]}


@pytest.mark.parametrize(
    ("request_body", "status", "message"),
    [
        ({}, 422, "inputs: is missing"),
        ({"inputs": []}, 422, "inputs: there are 0; the model has one, 'text'"),
        ({"inputs": body("a")["inputs"] * 2}, 422, "inputs: there are 2; the model has one, 'text'"),
        ({"inputs": "a"}, 422, "inputs: must be a list"),
        (changed(datatype="FP32"), 422, "inputs[0].datatype: is 'FP32'; texts are BYTES"),
        (changed(shape=[1, 2]), 422, "inputs[0].shape: must be [n] or [n, 1]"),
        (changed(shape=[]), 422, "inputs[0].shape: must be [n] or [n, 1]"),
        (changed(shape=[2]), 422, "inputs[0].shape: says 2 texts, but there are 1"),
        (changed(shape=[-1]), 422, "inputs[0].shape[0]: must be at least 0"),
        (changed(data=[1]), 422, "inputs[0].data[0]: must be a string"),
        (changed(data=None), 422, "inputs[0]: must have either data or binary_data_size"),
        (changed(shape=[0], data=[]), 400, "text is empty; send at least one text"),
        (changed(data=[" "]), 422, "text[0]: is blank"),
        (
            body("a", outputs=[{"name": "classes"}]),
            422,
            "outputs: there is no 'classes'; fake@1 has label, score, probabilities, truncated, logits, predicted",
        ),
        (
            body("a", outputs=[{"name": "label", "parameters": {"classification": 1}}]),
            422,
            "outputs: classification needs one of probabilities, logits, not label",
        ),
        (body("a", parameters={"timeout": "soon"}), 422, "parameters.timeout: must be a whole number"),
    ],
)
async def test_errors_are_strings(app: Application, request_body: dict[str, Any], status: int, message: str) -> None:
    response = await app.client.post(INFER, json=request_body)
    assert (response.status_code, response.json()["error"]) == (status, message)


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (*binary("a", size=4), 400, "inputs[0].binary_data_size: is 4, but 5 bytes follow the JSON part"),
        (*binary("a", size=400), 400, "inputs[0].binary_data_size: is 400, but 5 bytes follow the JSON part"),
        (b"{}", {HEADER: "3"}, 400, f"{HEADER}: must be a number of bytes, no more than the body has"),
        (b"{}", {HEADER: "-1"}, 400, f"{HEADER}: must be a number of bytes, no more than the body has"),
        (b"\5\0\0\0abc", {HEADER: "0"}, 400, "the raw input is not BYTES: a string of 5 bytes is cut off after 3"),
        (b"\1\0\0\0ab", {HEADER: "0"}, 400, "the raw input is not BYTES: 1 bytes are left where a length of 4 bytes should be"),
        (b"\1\0\0\0\xff", {HEADER: "0"}, 400, "a text is not valid UTF-8 (byte 0)"),
        (join_strings(["a", "b"]), {HEADER: "0"}, 422, "inputs[0].shape: says 1 texts, but there are 2"),
        (
            json.dumps(body("a")).encode() + b"?",
            {HEADER: str(len(json.dumps(body("a"))))},
            400,
            "1 bytes follow the JSON part, and no input says that they are its own",
        ),
    ],
)
async def test_bytes_that_do_not_fit_together_are_refused(
    app: Application, content: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    response = await app.client.post(INFER, content=content, headers=headers)
    assert (response.status_code, response.json()["error"]) == (status, message)


@given(st.lists(st.text()))
def test_strings_survive_the_binary_form(strings: list[str]) -> None:
    assert [string.decode() for string in split_strings(join_strings(strings))] == strings


@given(st.binary(max_size=40))
def test_any_bytes_are_strings_or_a_tensor_error(data: bytes) -> None:
    try:
        strings = split_strings(data)
    except TensorError:
        return
    assert b"".join(struct.pack("<I", len(string)) + string for string in strings) == data


async def test_metadata_and_health(app: Application) -> None:
    get = app.client.get
    server = (await get("/v2")).json()
    assert (server["name"], server["extensions"]) == (
        "supportbot",
        ["binary_tensor_data", "classification", "schedule_policy", "parameters"],
    )
    assert (await get("/v2/health/live")).json() == {"live": True}
    assert (await get("/v2/health/ready")).json() == {"ready": True, "live": True}
    assert (await get("/v2/models")).json() == {"models": ["fake"]}
    assert (await app.client.post("/v2/repository/index", json={})).json()[0]["state"] == "READY"
    for path in ("/v2/models/fake", "/v2/models/fake@1", "/v2/models/fake/versions/1"):
        assert (await get(f"{path}/ready")).json() == {"name": "fake", "ready": True}
        model = (await get(path)).json()
        assert (model["versions"], model["parameters"]["labels"]) == (["1"], ["billing", "general", "technical"])
        assert model["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
        assert outputs(await app.client.post(f"{path}/infer", json=body("a")))["label"] == ["general"]
    for path in ("/v2/models/other", "/v2/models/fake/versions/2", "/v2/models/fake@2"):
        for verb, rest in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
            response = await app.client.request(verb, path + rest, json=body("a") if verb == "POST" else None)
            assert response.status_code == 404
            assert response.json()["error"].startswith("there is no model")


async def test_the_outputs_in_the_metadata_are_those_of_an_answer(app: Application) -> None:
    described = (await app.client.get("/v2/models/fake")).json()["outputs"]
    wishes = [{"name": output["name"]} for output in described]
    given = (await app.client.post(INFER, json=body("a", "b", outputs=wishes))).json()["outputs"]
    for output, shown in zip(given, described, strict=True):
        assert (output["name"], output["datatype"]) == (shown["name"], shown["datatype"])
        assert output["shape"] == [2, *shown["shape"][1:]]


async def test_the_end_is_not_ready(app: Application) -> None:
    await app.service.drain()
    for path in ("/v2/health/ready", "/v2/models/fake/ready"):
        response = await app.client.get(path)
        assert (response.status_code, response.json()["error"]) == (503, "the server is shutting down")
    assert (await app.client.get("/v2/health/live")).status_code == 200
