"""What all dialects share: admission, deadlines, priorities, ids, timings, truncation, the end, metrics and logs."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from batching import Priority
from models.fake import FakeClassifier
from server.api import hugging_face, kserve, model_list, open_inference, sagemaker, semantic_router, tei, vllm
from server.api.classify import NATIVE
from server.app import dialect_endpoints, others_on_classify
from server.service import Service
from server.settings import DIALECTS, Settings, SettingsError, load_settings
from tests.server.api.dialects import SPOKEN, Spoken, ask
from tests.server.conftest import Application, Gate, running, until

SettingsMaker = Callable[..., Settings]
each = pytest.mark.parametrize("spoken", SPOKEN, ids=str)
OTHERS = (semantic_router, vllm, tei, hugging_face, open_inference, kserve, sagemaker)


@pytest.fixture
async def app(settings: SettingsMaker) -> AsyncIterator[Application]:
    async with running(settings()) as application:
        yield application


@each
async def test_texts_are_answered_in_order_with_an_id_and_timings(app: Application, spoken: Spoken) -> None:
    texts = ("payment failed", "app crashed", "hello") if spoken.several else ("payment failed",)
    response = await ask(app.client, spoken, *texts, X_Request_Id="ticket-1")
    assert response.status_code == 200, response.text
    assert spoken.labels(response.json()) == ["billing", "technical", "general"][: len(texts)]
    assert response.headers["x-request-id"] == "ticket-1"
    assert re.findall(r"(\w+);dur=", response.headers["server-timing"]) == ["tokenize", "queue", "inference", "total"]
    assert response.headers["content-type"] == "application/json"


@each
async def test_json_is_json_whatever_its_content_type_says(app: Application, spoken: Spoken) -> None:
    content = json.dumps(spoken.body(["payment"])).encode()
    for content_type in ("", "text/plain", "application/octet-stream", "nonsense", "application/x-www-form-urlencoded"):
        headers = {"Content-Type": content_type} if content_type else {}
        response = await app.client.post(spoken.path, content=content, headers=headers)
        assert (response.status_code, spoken.labels(response.json())) == (200, ["billing"])


@each
async def test_a_compressed_body_is_understood(app: Application, spoken: Spoken) -> None:
    content = gzip.compress(json.dumps(spoken.body(["payment"])).encode())
    response = await app.client.post(spoken.path, content=content, headers={"Content-Encoding": "gzip"})
    assert (response.status_code, spoken.labels(response.json())) == (200, ["billing"])


@each
@pytest.mark.parametrize(
    ("texts", "status", "message"),
    [
        ((" ",), 422, "is blank"),
        (("a",) * 33, 400, "33 texts; at most 32 are allowed"),
        ((), 400, "is empty; send at least one text"),
    ],
)
async def test_texts_that_cannot_be_classified_are_an_error_in_the_dialect_s_own_shape(
    app: Application, spoken: Spoken, texts: tuple[str, ...], status: int, message: str
) -> None:
    if not spoken.several and len(texts) != 1:
        pytest.skip("it takes one text")
    response = await ask(app.client, spoken, *texts)
    assert response.status_code == status
    assert message in spoken.message(response.json())
    assert response.headers["content-type"] == "application/json"
    assert (await ask(app.client, spoken, "payment")).status_code == 200


@each
@pytest.mark.parametrize(("content", "status"), [(b"{", 400), (b"[]", 422), (b"\xff", 400), (b'"text"', 422)])
async def test_what_is_no_request_of_any_dialect_is_a_clear_error(
    app: Application, spoken: Spoken, content: bytes, status: int
) -> None:
    response = await app.client.post(spoken.path, content=content)
    assert response.status_code == status
    assert "the body" in response.text


@each
async def test_a_text_that_was_cut_is_named_in_a_header(app: Application, spoken: Spoken) -> None:
    if spoken.name == NATIVE:
        pytest.skip("says so in its body")
    long = "a " * 257
    response = await ask(app.client, spoken, *(["hello", long, long] if spoken.several else [long]))
    assert response.headers["x-truncated"] == ("1, 2" if spoken.several else "0")
    assert "x-truncated" not in (await ask(app.client, spoken, "hello")).headers


@each
async def test_a_deadline_in_a_header_holds(settings: SettingsMaker, spoken: Spoken) -> None:
    gate = Gate()
    async with running(settings(), lambda: FakeClassifier(gate)) as app:
        response = await ask(app.client, spoken, "hello", X_Timeout_Ms="40")
        assert response.status_code == 504
        assert "timeout" in spoken.message(response.json())
        gate.opened.set()


@each
async def test_a_full_queue_is_answered_429_with_retry_after_and_bulk_has_places_of_its_own(
    settings: SettingsMaker, spoken: Spoken
) -> None:
    gate = Gate()
    limits = settings(queue_max_texts=1, max_texts_per_request=1)
    async with running(limits, lambda: FakeClassifier(gate)) as app:
        first = asyncio.create_task(ask(app.client, spoken, "hello"))
        await asyncio.to_thread(gate.entered.wait, 10)
        second = asyncio.create_task(ask(app.client, spoken, "payment"))
        await until(lambda: (seen := app.service.statistics()) is not None and seen.queued == 1)
        refused = await ask(app.client, spoken, "crash")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "too many texts are waiting" in spoken.message(refused.json())
        bulk = asyncio.create_task(ask(app.client, spoken, "crash", X_Priority="bulk"))
        await until(lambda: (seen := app.service.statistics()) is not None and seen.queued_bulk == 1)
        gate.opened.set()
        assert [(await task).status_code for task in (first, second, bulk)] == [200, 200, 200]
        statistics = app.service.statistics()
        assert statistics is not None
        assert statistics.refused == {Priority.INTERACTIVE: 1, Priority.BULK: 0}


@each
async def test_while_the_server_ends_accepted_requests_are_finished_and_new_ones_get_503(
    settings: SettingsMaker, spoken: Spoken
) -> None:
    gate = Gate()
    async with running(settings(drain_linger_ms=50), lambda: FakeClassifier(gate)) as app:
        accepted = asyncio.create_task(ask(app.client, spoken, "payment"))
        await asyncio.to_thread(gate.entered.wait, 10)
        drain = asyncio.create_task(app.service.drain())
        await until(lambda: app.service.phase().value == "draining")
        refused = await ask(app.client, spoken, "payment")
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        assert "retry-after" in refused.headers
        assert "shutting down" in spoken.message(refused.json())
        gate.opened.set()
        assert spoken.labels((await accepted).json()) == ["billing"]
        await drain


@each
async def test_while_the_server_is_leaving_answers_close_their_connections(settings: SettingsMaker, spoken: Spoken) -> None:
    async with running(settings(drain_delay_ms=60_000)) as app:
        drain = asyncio.create_task(app.service.drain())
        await until(lambda: app.service.is_leaving)
        response = await ask(app.client, spoken, "payment")
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        app.service.skip_drain_delay()
        await drain


@each
async def test_a_failing_model_is_answered_500(settings: SettingsMaker, spoken: Spoken) -> None:
    gate = Gate(failure=RuntimeError("broken"))
    gate.opened.set()
    async with running(settings(), lambda: FakeClassifier(gate)) as app:
        response = await ask(app.client, spoken, "payment")
        assert response.status_code == 500
        assert "the model failed" in spoken.message(response.json())


@each
async def test_metrics_access_log_and_prediction_log_know_of_it(settings: SettingsMaker, spoken: Spoken, tmp_path: Path) -> None:
    async with running(settings(prediction_log=tmp_path / "log.jsonl")) as app:
        with capture_logs() as logs:
            response = await ask(app.client, spoken, "payment", X_Request_Id="ticket-1")
            assert response.status_code == 200
        (line,) = [line for line in logs if line["event"] == "request"]
        assert (line["dialect"], line["texts"], line["path"]) == (spoken.name, 1, spoken.path)
        families = text_string_to_metric_families((await app.client.get("/metrics")).text)
        samples = {(sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples}
        assert samples["supportbot_http_request_duration_seconds_count", *sorted(["200", spoken.name, spoken.route])] == 1
        assert samples["supportbot_predictions_total", "billing"] == 1
    (record,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (record["request_id"], record["label"]) == ("ticket-1", "billing")


async def test_what_clients_make_up_is_no_label_of_the_metrics(app: Application) -> None:
    for path in ("/v2/models/made-up/infer", "/v1/models/made-up:predict", "/v2/made-up"):
        assert (await app.client.post(path, json={})).status_code == 404
    text = (await app.client.get("/metrics")).text
    assert "made-up" not in text
    assert 'route="/v2/models/{model}/infer"' in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/fake/config", 404),
        ("POST", "/v2/models/fake", 405),
        ("POST", "/v2/repository/models/fake/load", 404),
        ("POST", "/v1/models/fake:explain", 405),
        ("GET", "/v1/models/fake/metadata", 404),
    ],
)
async def test_what_is_no_route_is_an_error_that_the_clients_of_such_paths_can_read(
    settings: SettingsMaker, method: str, path: str, status: int
) -> None:
    """tritonclient fails to show an error that is an object."""
    async with running(settings()) as app:
        response = await app.client.request(method, path)
        assert response.status_code == status
        assert response.json()["error"] in {"Not Found", "Method Not Allowed"}
    async with running(settings(dialects="native")) as app:
        assert (await app.client.request(method, path)).json()["error"]["code"] in {"not_found", "method_not_allowed"}


async def test_a_request_in_two_dialects_at_once_is_ours_and_its_other_field_an_error(app: Application) -> None:
    response = await app.client.post("/classify", json={"text": "a", "inputs": "b"})
    assert response.status_code == 422
    assert response.json()["error"]["message"] == "inputs: is not a known field"


@pytest.mark.parametrize("spoken", [spoken for spoken in SPOKEN if spoken.name != NATIVE], ids=str)
async def test_a_dialect_that_is_not_among_the_dialects_is_not_served(settings: SettingsMaker, spoken: Spoken) -> None:
    others = ",".join(name for name in DIALECTS if name != spoken.name)
    async with running(settings(dialects=others)) as app:
        response = await ask(app.client, spoken, "payment")
        assert response.status_code in {404, 405, 422}
        assert (await app.client.post("/classify", json={"text": "payment"})).status_code == 200
    async with running(settings(dialects=f" {spoken.name} ")) as app:
        assert (await ask(app.client, spoken, "payment")).status_code == 200


async def test_native_means_no_other_dialect(settings: SettingsMaker) -> None:
    async with running(settings(dialects=NATIVE)) as app:
        for spoken in SPOKEN:
            is_served = (await ask(app.client, spoken, "payment")).status_code == 200
            assert is_served == (spoken.name == NATIVE)
        assert (await app.client.get("/v1/models")).status_code == 404


async def test_the_names_of_the_dialects_are_those_of_their_modules(settings: SettingsMaker) -> None:
    assert sorted(DIALECTS) == sorted([NATIVE, *(module.NAME for module in OTHERS)])
    assert {spoken.name for spoken in SPOKEN} == set(DIALECTS)
    service = Service(settings(), FakeClassifier)
    assert len(others_on_classify(service)) == 3
    assert {endpoint.path for endpoint in dialect_endpoints(service)} >= {"/v1/models", "/predict", "/v2", "/ping"}
    assert model_list.DIALECT.name not in DIALECTS


@pytest.mark.usefixtures("settings")
def test_an_unknown_dialect_stops_the_start() -> None:
    with pytest.raises(SettingsError, match=r"^--dialects=tei, oops: there is no dialect oops; known are native, "):
        load_settings({"dialects": "tei, oops"})
