"""`GET /metrics` and `GET /confidence`: what happened is what is told, whatever happened."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from batching import FlushReason, PassEnd, PassReport
from models.fake import FakeClassifier
from server.app import create_app
from server.observe.metrics import Metrics
from server.settings import Settings, SettingsError
from tests.server.conftest import Application, Gate, running, until

SettingsMaker = Callable[..., Settings]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Samples:
    """The samples by name and labels."""
    families = text_string_to_metric_families(text)
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}


async def scrape(app: Application) -> Callable[..., float]:
    """A function from a metric's name, without `supportbot_`, and labels to its value; a KeyError if there is none."""
    response = await app.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    samples = parsed(response.text)
    return lambda name, **labels: samples[f"supportbot_{name}", tuple(sorted(labels.items()))]


async def test_answers_are_counted_by_route_status_label_length_and_confidence(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        await app.client.post("/classify", json={"texts": ["payment due", "app crash now", "hello"]})
        await app.client.post("/classify", json={"text": "refund"})
        value = await scrape(app)
    assert value("http_request_duration_seconds_count", route="/classify", dialect="native", status="200") == 2
    assert value("http_request_duration_seconds_bucket", route="/classify", dialect="native", status="200", le="10.0") == 2
    assert value("http_request_duration_seconds_sum", route="/classify", dialect="native", status="200") > 0
    for stage in ("tokenize", "queue", "inference"):
        assert value(f"{stage}_seconds_count") == 2
    assert {label: value("predictions_total", label=label) for label in FakeClassifier.labels} == {
        "billing": 2,
        "general": 1,
        "technical": 1,
    }
    assert (value("text_tokens_count"), value("text_tokens_sum")) == (4, 7)
    assert value("text_tokens_bucket", le="4.0") == 4
    assert value("truncated_texts_total") == 0
    assert value("confidence_count") == 4
    assert value("confidence_sum") == pytest.approx(3.2)
    assert (value("confidence_bucket", le="0.75"), value("confidence_bucket", le="0.8")) == (0, 4)
    assert value("confidence_mean", window="1m") == value("confidence_mean", window="24h") == 0.8
    assert value("low_confidence_share", window="1h") == 0
    assert (value("accepted_texts_total", priority="interactive"), value("texts_total", outcome="answered")) == (4, 4)
    assert (value("passes_total", end="done"), value("pass_texts_sum"), value("pass_tokens_sum")) == (2, 4, 7)
    assert value("flushes_total", reason="idle") == 2
    assert (value("attention_cells_total"), value("padded_attention_cells_total")) == (4 + 9 + 1 + 1, 3 * 9 + 1)
    assert value("model_info", model="fake@1", fingerprint="fake") == 1
    assert (value("ready"), value("workers"), value("queued_texts", priority="interactive")) == (1, 1, 0)


async def test_texts_over_the_limit_are_counted_at_the_limit_and_as_truncated(settings: SettingsMaker) -> None:
    async with running(settings(), lambda: FakeClassifier(max_length=5)) as app:
        await app.client.post("/classify", json={"texts": ["one two three four five six", "one two three four five"]})
        value = await scrape(app)
    assert (value("truncated_texts_total"), value("text_tokens_count"), value("text_tokens_sum")) == (1, 2, 10)
    assert (value("text_tokens_bucket", le="4.0"), value("text_tokens_bucket", le="8.0")) == (0, 2)
    assert value("text_tokens_bucket", le="1024.0") == value("text_tokens_bucket", le="+Inf") == 2


async def test_texts_longer_than_the_last_bucket_are_in_the_infinite_one(settings: SettingsMaker) -> None:
    async with running(settings(max_body_bytes=1 << 20), lambda: FakeClassifier(max_length=2000)) as app:
        await app.client.post("/classify", json={"texts": ["word " * 1500, "word"]})
        value = await scrape(app)
    assert (value("text_tokens_bucket", le="1024.0"), value("text_tokens_bucket", le="+Inf")) == (1, 2)


async def test_routes_that_clients_make_up_share_one_label(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        for path in ("/one", "/two/three", "/classify/"):
            assert (await app.client.get(path)).status_code == 404
        assert (await app.client.get("/classify")).status_code == 405
        assert (await app.client.post("/classify", content=b"no")).status_code == 400
        value = await scrape(app)
        text = (await app.client.get("/metrics")).text
    assert value("http_request_duration_seconds_count", route="other", dialect="", status="404") == 3
    assert value("http_request_duration_seconds_count", route="/classify", dialect="", status="405") == 1
    assert value("http_request_duration_seconds_count", route="/classify", dialect="native", status="400") == 1
    assert "two" not in text


async def test_a_text_from_the_cache_is_a_prediction_but_no_work(settings: SettingsMaker) -> None:
    async with running(settings(answer_cache_texts=10)) as app:
        for _ in range(3):
            await app.client.post("/classify", json={"text": "payment"})
        value = await scrape(app)
    assert (value("predictions_total", label="billing"), value("confidence_count")) == (3, 3)
    assert (value("text_tokens_count"), value("queue_seconds_count"), value("accepted_texts_total", priority="interactive")) == (
        1,
        1,
        1,
    )
    assert (value("cache_lookups_total", result="hit"), value("cache_lookups_total", result="miss")) == (2, 1)


async def test_what_waits_is_refused_joins_or_leaves_is_seen_while_it_happens(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(queue_max_texts=2, max_texts_per_request=2), lambda: FakeClassifier(gate)) as app:
        first = asyncio.create_task(app.client.post("/classify", json={"text": "payment"}))
        await until(gate.entered.is_set)
        same = asyncio.create_task(app.client.post("/classify", json={"text": "payment"}))
        late = asyncio.create_task(app.client.post("/classify", json={"text": "three words here", "timeout_ms": 30}))
        bulk = asyncio.create_task(app.client.post("/classify", json={"text": "bulk text", "priority": "bulk"}))
        await until(lambda: (now := app.service.statistics()) is not None and now.queued == 2 and now.coalesced == 1)
        full = await app.client.post("/classify", json={"texts": ["one", "two"]})
        value = await scrape(app)
        assert full.status_code == 429
        assert value("refused_texts_total", reason="queue_full", priority="interactive") == 2
        assert value("queued_texts", priority="bulk") == 1
        assert (value("running_passes"), value("in_flight_texts"), value("coalesced_texts_total")) == (1, 1, 1)
        assert (await late).status_code == 504
        gate.opened.set()
        assert {(await task).status_code for task in (first, same, bulk)} == {200}
        value = await scrape(app)
    assert (value("texts_total", outcome="expired"), value("dropped_texts_total", reason="expired")) == (1, 1)
    assert value("http_request_duration_seconds_count", route="/classify", dialect="native", status="504") == 1
    assert (value("queued_texts", priority="bulk"), value("running_passes")) == (0, 0)


async def test_failing_passes_are_counted_by_their_end_and_so_are_bisected_batches(settings: SettingsMaker) -> None:
    gate = Gate(failure=RuntimeError("broken"))
    gate.opened.set()
    async with running(settings(), lambda: FakeClassifier(gate)) as app:
        assert (await app.client.post("/classify", json={"texts": ["payment", "crash"]})).status_code == 500
        value = await scrape(app)
    assert (value("passes_total", end="halved"), value("passes_total", end="failed")) == (1, 2)
    assert (value("bisected_batches_total"), value("extra_passes_total")) == (1, 2)
    assert (value("texts_total", outcome="failed"), value("pass_seconds_count")) == (2, 3)


def test_a_pass_that_hung_is_measured_neither_when_it_is_given_up_nor_when_it_ends() -> None:
    metrics = Metrics()
    for end in (PassEnd.HUNG, PassEnd.RECOVERED, PassEnd.DIED, PassEnd.DONE):
        metrics.observe_pass(PassReport(end, 3, 30, FlushReason.IDLE, 40.0))
    samples = parsed(metrics.exposition("")[0].decode())
    assert samples["supportbot_pass_seconds_count", ()] == 1
    assert all(samples["supportbot_passes_total", (("end", end.value),)] == 1 for end in (PassEnd.HUNG, PassEnd.RECOVERED))


def test_a_request_without_an_answer_has_the_status_none() -> None:
    metrics = Metrics()
    metrics.observe_request("/classify", "native", 0, 0.1)
    labels = (("dialect", "native"), ("route", "/classify"), ("status", "none"))
    assert parsed(metrics.exposition("")[0].decode())["supportbot_http_request_duration_seconds_count", labels] == 1


async def test_before_there_is_a_model_metrics_say_not_ready_and_confidence_is_refused(settings: SettingsMaker) -> None:
    def broken() -> FakeClassifier:
        raise OSError("no such bundle")

    async with running(settings(), broken) as app:
        value = await scrape(app)
        confidence = await app.client.get("/confidence")
    assert value("ready") == 0
    with pytest.raises(KeyError):
        value("accepted_texts_total", priority="interactive")
    assert (confidence.status_code, confidence.json()["error"]["code"]) == (503, "not_ready")


async def test_while_a_pass_hangs_the_server_is_not_ready_by_its_metrics_either(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(pass_timeout_ms=20), lambda: FakeClassifier(gate)) as app:
        assert (await app.client.post("/classify", json={"text": "payment"})).status_code == 504
        value = await scrape(app)
        assert (value("ready"), value("hung_passes")) == (0, 1)
        gate.opened.set()
        await until(lambda: (now := app.service.statistics()) is not None and not now.hung_passes)
        assert (await scrape(app))("ready") == 1


async def test_lengths_are_logged_at_the_end_however_few(settings: SettingsMaker) -> None:
    with capture_logs() as logs:
        async with running(settings()) as app:
            await app.client.post("/classify", json={"text": "two words"})
            await app.service.drain()
    (report,) = (line for line in logs if line["event"] == "lengths")
    assert (report["texts"], report["p50"]) == (1, 2)


async def test_openmetrics_is_given_to_whoever_prefers_it(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        await app.client.post("/classify", json={"text": "payment"})
        response = await app.client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(response.text)}  # type: ignore[no-untyped-call]
    assert {"supportbot_predictions", "supportbot_http_request_duration_seconds", "process_cpu_seconds"} <= names


async def test_every_metric_has_our_prefix_or_a_standard_one_and_says_what_it_is(settings: SettingsMaker) -> None:
    async with running(settings(prediction_log="log.jsonl")) as app:
        await app.client.post("/classify", json={"text": "payment"})
        families = list(text_string_to_metric_families((await app.client.get("/metrics")).text))
    assert len(families) > 40
    assert [family.name for family in families if not family.name.startswith(("supportbot_", "process_", "python_gc_"))] == []
    assert [family.name for family in families if len(family.documentation) < 8] == []
    assert len({family.name for family in families}) == len(families)


async def test_two_applications_in_a_process_count_apart(settings: SettingsMaker) -> None:
    async with running(settings()) as one, running(settings()) as other:
        await one.client.post("/classify", json={"text": "payment"})
        assert (await scrape(one))("accepted_texts_total", priority="interactive") == 1
        assert (await scrape(other))("accepted_texts_total", priority="interactive") == 0


async def test_confidence_is_told_since_the_start_and_by_window(settings: SettingsMaker) -> None:
    async with running(settings(low_confidence=0.9)) as app:
        await app.client.post("/classify", json={"texts": ["payment", "refund", "hello"]})
        report = (await app.client.get("/confidence")).json()
    assert (report["model"], report["low_confidence_below"]) == ("fake@1", 0.9)
    assert report["since_start"]["labels"] == {"billing": 2, "general": 1, "technical": 0}
    assert (report["since_start"]["mean"], report["since_start"]["low_share"]) == (0.8, 1.0)
    assert list(report["windows"]) == ["1m", "1h", "24h"]
    assert all(window["texts"] == 3 and window["mean"] == 0.8 for window in report["windows"].values())


def lines_of(path: Path) -> Iterator[dict[str, object]]:
    return (json.loads(line) for line in path.read_text().splitlines())


async def test_predictions_are_in_the_log_when_the_service_has_ended(settings: SettingsMaker, tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    async with running(settings(prediction_log=str(path), answer_cache_texts=5)) as app:
        await app.client.post("/classify", json={"texts": ["payment due", "hello"]}, headers={"X-Request-Id": "mine"})
        await app.client.post("/classify", json={"text": "hello"})
    first, second, cached = lines_of(path)
    assert (first["request_id"], first["label"], first["confidence"], first["tokens"]) == ("mine", "billing", 0.8, 2)
    assert (second["label"], second["tokens"], second["truncated"]) == ("general", 1, False)
    assert (cached["tokens"], cached["text_hash"]) == (None, second["text_hash"])
    assert "payment" not in path.read_text()


async def test_texts_are_in_the_prediction_log_only_when_asked_for(settings: SettingsMaker, tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    async with running(settings(prediction_log=str(path), prediction_log_text=True)) as app:
        await app.client.post("/classify", json={"text": "payment due"})
    assert [line["text"] for line in lines_of(path)] == ["payment due"]


async def test_with_a_secret_hashes_are_equal_across_runs(settings: SettingsMaker, tmp_path: Path) -> None:
    hashes = []
    for number, secret in enumerate(("", "", "s3cret", "s3cret")):
        path = tmp_path / f"{number}.jsonl"
        async with running(settings(prediction_log=str(path), prediction_log_secret=secret)) as app:
            await app.client.post("/classify", json={"text": "payment due"})
        hashes += [line["text_hash"] for line in lines_of(path)]
    assert len(set(hashes)) == 3
    assert hashes[2] == hashes[3]


async def test_as_many_full_files_are_kept_as_the_setting_says(settings: SettingsMaker, tmp_path: Path) -> None:
    async with running(settings(prediction_log=str(tmp_path / "log"), prediction_log_files=3)) as app:
        assert app.service.prediction_log is not None
        assert [path.name for path in app.service.prediction_log.paths()] == ["log", "log.1", "log.2", "log.3"]


async def test_a_refused_or_failed_text_is_no_prediction(settings: SettingsMaker, tmp_path: Path) -> None:
    gate = Gate(failure=RuntimeError("broken"))
    gate.opened.set()
    path = tmp_path / "predictions.jsonl"
    async with running(settings(prediction_log=str(path)), lambda: FakeClassifier(gate)) as app:
        await app.client.post("/classify", json={"text": "payment"})
        await app.client.post("/classify", json={"text": " "})
        value = await scrape(app)
    assert path.read_text() == ""
    assert value("confidence_count") == 0


async def test_a_disk_that_is_full_loses_lines_but_no_answer(settings: SettingsMaker, tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    async with running(settings(prediction_log=str(path))) as app:
        path.unlink()
        path.mkdir()  # nothing can be appended there any more
        for _ in range(3):
            assert (await app.client.post("/classify", json={"text": "payment"})).status_code == 200
        assert app.service.prediction_log is not None
        counts = app.service.prediction_log.counts
        await until(lambda: counts().pending == 0)
        value = await scrape(app)
    assert value("prediction_log_records_total", outcome="lost") == 3
    assert value("prediction_log_records_total", outcome="written") == 0


def test_a_prediction_log_that_cannot_work_stops_the_start(settings: SettingsMaker, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"PREDICTION_LOG=.*there is no folder"):
        create_app(settings(prediction_log=str(tmp_path / "nowhere" / "log.jsonl")), FakeClassifier)


async def test_lengths_and_their_advice_are_logged_after_a_thousand_texts_and_from_the_log_of_an_earlier_run(
    settings: SettingsMaker, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.jsonl"
    wanted = settings(prediction_log=str(path), max_texts_per_request=250)
    with capture_logs() as logs:
        async with running(wanted, lambda: FakeClassifier(max_length=3)) as app:
            for number in range(4):
                texts = [f"{'far too long a text' if row % 5 == 0 else 'short'} {number * 250 + row}" for row in range(250)]
                assert (await app.client.post("/classify", json={"texts": texts})).status_code == 200
    (report,) = (line for line in logs if line["event"] == "lengths")
    assert (report["texts"], report["truncated"]) == (1000, 0.2)
    assert "max-length" in report["recommendation"]
    with capture_logs() as logs:
        async with running(wanted, lambda: FakeClassifier(max_length=3)):
            await until(lambda: any(line["event"] == "lengths of an earlier run" for line in logs))
    (earlier,) = (line for line in logs if line["event"] == "lengths of an earlier run")
    assert (earlier["texts"], earlier["truncated"]) == (1000, 0.2)


async def test_an_earlier_log_that_cannot_be_read_is_said_and_the_server_works(
    settings: SettingsMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr("server.service.from_prediction_log", broken)
    with capture_logs() as logs:
        async with running(settings(prediction_log=str(tmp_path / "predictions.jsonl"))) as app:
            await until(lambda: any(line["event"] == "the lengths of an earlier run cannot be told" for line in logs))
            assert (await app.client.post("/classify", json={"text": "refund"})).status_code == 200
    (said,) = (line for line in logs if line["event"] == "the lengths of an earlier run cannot be told")
    assert said["reason"] == "ZeroDivisionError"


async def test_accepted_texts_are_counted_by_class(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        await app.client.post("/classify", json={"texts": ["payment due", "app crash now"], "priority": "bulk"})
        await app.client.post("/classify", json={"text": "refund"})
        value = await scrape(app)
    assert value("accepted_texts_total", priority="bulk") == 2
    assert value("accepted_texts_total", priority="interactive") == 1
