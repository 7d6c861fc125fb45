"""Models of every problem type, in every dialect: what is answered, and what cannot be asked of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.fake import FakeClassifier
from models.problem import MultiLabel, OneLabel, Problem, Regression
from models.types import Prediction
from server.api.scores import Function, values
from server.settings import Settings
from tests.server.conftest import Application, running
from tests.server.profiled import PROFILE

SettingsMaker = Callable[..., Settings]
Json: TypeAlias = Any  # an answer, whatever its shape
# The fake model's logits of TWO are 3, -2 and 1, or 2 where there is one; those of NONE are all -2, or 0.
TWO, NONE = "payment and crash", "nothing"
BILLING, SPAM, TECHNICAL, TOXIC = 0.952574, 0.119203, 0.731059, 0.880797
PROBLEMS: Mapping[str, Problem] = {
    "multi-label": MultiLabel(("billing", "spam", "technical")),
    "one-label": OneLabel(("toxic",)),
    "regression": Regression(("stars",)),
}


@pytest.fixture(params=list(PROBLEMS))
async def app(request: pytest.FixtureRequest, settings: SettingsMaker, tmp_path: Path) -> AsyncIterator[Application]:
    problem = PROBLEMS[request.param]
    async with running(settings(prediction_log=tmp_path / "log.jsonl"), lambda: FakeClassifier(problem=problem)) as application:
        yield application


async def post(app: Application, path: str, body: object) -> Json:
    response = await app.client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def by_type(app: Application, multi: Json, one: Json, regression: Json) -> Json:
    assert app.service.model is not None
    return {"multi-label": multi, "one-label": one, "regression": regression}[app.service.model.problem.type]


def listed(**scores: float) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in scores.items()]


async def test_the_native_answer_has_all_labels_with_their_confidences_or_a_number(app: Application) -> None:
    several = await post(app, "/classify", {"texts": [TWO, NONE]})
    single = await post(app, "/classify", {"text": TWO, "scores": True})
    for body in (several, single):
        del body["latency_ms"], body["model"]
    assert several == by_type(
        app,
        {"predictions": [["billing", "technical"], []], "confidences": [[BILLING, TECHNICAL], []]},
        {"predictions": [TOXIC, 0.5]},
        {"predictions": [2.0, 0.0]},
    )
    assert single == by_type(
        app,
        {
            "prediction": ["billing", "technical"],
            "confidence": [BILLING, TECHNICAL],
            "scores": {"billing": BILLING, "spam": SPAM, "technical": TECHNICAL},
        },
        {"prediction": TOXIC, "scores": {"toxic": TOXIC}},
        {"prediction": 2.0, "scores": {"stars": 2.0}},
    )


async def test_a_stream_and_the_prediction_log_have_the_same(app: Application, tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in (TWO, NONE))
    response = await app.client.post("/classify", content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert [json.loads(line) for line in response.text.splitlines()] == by_type(
        app,
        [
            {"line": 1, "prediction": ["billing", "technical"], "confidence": [BILLING, TECHNICAL]},
            {"line": 2, "prediction": [], "confidence": []},
        ],
        [{"line": 1, "prediction": TOXIC}, {"line": 2, "prediction": 0.5}],
        [{"line": 1, "prediction": 2.0}, {"line": 2, "prediction": 0.0}],
    )
    assert app.service.prediction_log is not None
    await app.service.prediction_log.close(5)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    others = {"time", "request_id", "tokens", "truncated", "text_hash"}
    assert [{name: value for name, value in record.items() if name not in others} for record in records] == by_type(
        app,
        [{"labels": ["billing", "technical"], "confidences": [BILLING, TECHNICAL]}, {"labels": [], "confidences": []}],
        [{"value": TOXIC}, {"value": 0.5}],
        [{"value": 2.0}, {"value": 0.0}],
    )


async def test_transformers_pipelines_list_all_labels_by_the_problem_type_s_own_function(app: Application) -> None:
    multi = listed(billing=BILLING, technical=TECHNICAL, spam=SPAM)
    for path in ("/", "/invocations"):
        assert await post(app, path, {"inputs": TWO}) == [by_type(app, multi, listed(toxic=TOXIC), listed(stars=2.0))]
        sigmoid = {"inputs": TWO, "parameters": {"function_to_apply": "sigmoid", "top_k": 1}}
        assert await post(app, path, sigmoid) == [by_type(app, multi[:1], listed(toxic=TOXIC), listed(stars=TOXIC))]
    softmax = await post(app, "/", {"inputs": TWO, "parameters": {"function_to_apply": "softmax"}})
    assert softmax == [by_type(app, listed(billing=0.875601, technical=0.1185, spam=0.0059), listed(toxic=1.0), listed(stars=1.0))]


def test_who_asks_for_the_problem_type_s_own_function_gets_calibrated_scores() -> None:
    prediction = Prediction("billing", 0.6, (0.6, 0.3, 0.2), (2.0, 0.0, -2.0))
    multi, regression = PROBLEMS["multi-label"], PROBLEMS["regression"]
    for asked in (None, "sigmoid"):
        assert values(prediction, Function.of(asked, multi)) == [0.6, 0.3, 0.2]
    assert values(prediction, Function.of_probability(multi)) == [0.6, 0.3, 0.2]
    assert values(prediction, Function.of("sigmoid", regression)) == [TOXIC, 0.5, SPAM]
    assert values(prediction, Function.of("none", regression)) == [0.6, 0.3, 0.2]
    assert values(prediction, Function.of("none", multi)) == [2.0, 0.0, -2.0]
    assert sum(values(prediction, Function.of("softmax", multi))) == pytest.approx(1, abs=2e-6)


async def test_tei_and_the_semantic_router_get_probabilities(app: Application) -> None:
    ranked = by_type(app, listed(billing=BILLING, technical=TECHNICAL, spam=SPAM), listed(toxic=TOXIC), listed(stars=TOXIC))
    assert await post(app, "/predict", {"inputs": [[TWO]]}) == [ranked]
    raw = await post(app, "/predict", {"inputs": TWO, "raw_scores": True})
    assert raw == by_type(app, listed(billing=3.0, technical=1.0, spam=-2.0), listed(toxic=2.0), listed(stars=2.0))
    router = await post(app, "/classify", {"inputs": TWO})
    assert sorted(router, key=lambda score: -score["score"]) == ranked


async def test_vllm_gets_the_problem_type_s_own_scores_and_the_highest_label(app: Application) -> None:
    (row,) = (await post(app, "/v1/classify", {"input": TWO}))["data"]
    assert row == by_type(
        app,
        {"index": 0, "label": "billing", "probs": [BILLING, SPAM, TECHNICAL], "num_classes": 3},
        {"index": 0, "label": "toxic", "probs": [TOXIC], "num_classes": 1},
        {"index": 0, "label": "stars", "probs": [2.0], "num_classes": 1},
    )


async def test_kserve_gets_what_is_predicted(app: Application) -> None:
    answer = await post(app, "/v1/models/fake:predict", {"instances": [TWO, NONE]})
    assert answer["predictions"] == by_type(
        app,
        [listed(billing=BILLING, technical=TECHNICAL), []],
        [*listed(toxic=TOXIC), *listed(toxic=0.5)],
        [*listed(stars=2.0), *listed(stars=0.0)],
    )
    top = await post(app, "/v1/models/fake:predict", {"instances": [TWO], "parameters": {"top_k": 1}})
    assert top["predictions"] == [by_type(app, listed(billing=BILLING), listed(toxic=TOXIC), listed(stars=2.0))]


async def test_open_inference_has_probabilities_and_predicted_labels_as_tensors(app: Application) -> None:
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": [TWO, NONE]}
    chosen = [{"name": name} for name in ("label", "score", "probabilities", "predicted")]
    answer = await post(app, "/v2/models/fake/infer", {"inputs": [tensor], "outputs": chosen})
    found = {output["name"]: (output["shape"], output["data"]) for output in answer["outputs"]}
    assert found["label"][1] == by_type(app, ["billing", "billing"], ["toxic"] * 2, ["stars"] * 2)
    assert found["score"][1] == by_type(app, [BILLING, SPAM], [TOXIC, 0.5], [2.0, 0.0])
    assert found["probabilities"] == by_type(
        app, ([2, 3], [BILLING, SPAM, TECHNICAL, SPAM, SPAM, SPAM]), ([2, 1], [TOXIC, 0.5]), ([2, 1], [TOXIC, 0.5])
    )
    assert found["predicted"] == by_type(app, ([2, 3], [True, False, True] + [False] * 3), *[([2, 1], [False, False])] * 2)
    parameters = (await app.client.get("/v2/models/fake")).json()["parameters"]
    assert parameters["problem_type"] == by_type(app, *PROBLEMS)
    assert parameters.get("thresholds") == by_type(app, [0.5] * 3, None, None)


async def test_what_such_a_model_cannot_give_is_refused(app: Application) -> None:
    kind = by_type(app, *PROBLEMS)
    index = (await app.client.get("/")).json()
    assert (index["problem_type"], index.get("thresholds")) == (kind, by_type(app, [0.5] * 3, None, None))
    feedback = await app.client.post("/classify", json={"text": TWO, "feedback": True})
    label = await app.client.post("/feedback", json={"request_id": "r", "label": "billing"})
    for response in (feedback, label):
        assert response.status_code == 422
        assert "needs a model that gives one label" in response.json()["error"]["message"]
    least = await app.client.post("/classify", json={"texts": [TWO, NONE], "min_confidence": 0.8})
    if kind == "multi-label":
        assert least.json()["abstained"] == [True, False]
    else:
        assert (least.status_code, "a number, which has no confidence" in least.text) == (422, True)
    reason = f"it needs a model that gives one label, and this one is {kind}"
    assert (await app.client.get("/drift")).json() == {"model": "fake@1", "enabled": False, "reason": reason}


async def test_at_the_start_it_is_said_that_drift_is_not_watched(
    settings: SettingsMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    for problem in PROBLEMS.values():
        async with running(settings(), lambda problem=problem: FakeClassifier(problem=problem)):  # type: ignore[misc]
            told = capsys.readouterr().out
        assert "drift is not watched" in told
        # Neither with a profile, nor with a baseline, which would be of another model.
        profiled = FakeClassifier(problem=problem)
        profiled.profile = PROFILE.to_bytes()
        async with running(settings(drift_profile=Path("baseline.json")), lambda profiled=profiled: profiled) as app:  # type: ignore[misc]
            ready = (await app.client.get("/ready")).text
        assert f"DRIFT_PROFILE=baseline.json: it needs a model that gives one label, and this one is {problem.type}" in ready
        async with running(settings(), lambda profiled=profiled: profiled) as app:  # type: ignore[misc]
            assert (await app.client.get("/drift")).json()["enabled"] is False
        assert f"it needs a model that gives one label, and this one is {problem.type}" in told


async def test_metrics_and_confidence_count_each_label_or_the_values(app: Application) -> None:
    await post(app, "/classify", {"texts": [TWO, "payment failed", NONE]})
    samples = {
        (sample.name.removeprefix("supportbot_"), *(value for name, value in sample.labels.items() if name != "le")): sample.value
        for family in text_string_to_metric_families((await app.client.get("/metrics")).text)
        for sample in family.samples
    }
    report = (await app.client.get("/confidence")).json()
    hour, start = report["windows"]["1h"], report["since_start"]
    assert (hour["texts"], start["texts"]) == (3, 3)
    if by_type(app, True, False, False):
        assert samples["predictions_total", "billing"] == 2
        assert samples["predictions_total", "spam"] == 0
        assert (samples["unlabelled_texts_total",], samples["confidence_count",]) == (1, 3)
        assert start["labels"] == {"billing": 2, "spam": 0, "technical": 1}
        assert (start["unlabelled"], sum(start["histogram"]["texts"])) == (1, 3)
        assert hour["label_shares"] == {"billing": 0.666667, "spam": 0, "technical": 0.333333}
        assert hour["label_means"] == {"billing": BILLING, "spam": None, "technical": TECHNICAL}
        assert hour["mean"] == pytest.approx((2 * BILLING + TECHNICAL) / 3, abs=1e-6)
    else:
        values = by_type(app, None, [TOXIC, TECHNICAL, 0.5], [2.0, 1.0, 0.0])
        mean = sum(values) / 3
        deviation = (sum((value - mean) ** 2 for value in values) / 3) ** 0.5
        # With bounds below 0, Prometheus has no sum, which might fall.
        assert samples.get(("value_sum",)) == by_type(app, None, pytest.approx(sum(values)), None)
        assert samples["value_bucket",] == 3
        assert (hour["mean"], hour["standard_deviation"]) == (pytest.approx(mean, abs=1e-6), pytest.approx(deviation, abs=1e-6))
        assert samples["value_mean", "1h"] == hour["mean"]
        assert samples["value_standard_deviation", "24h"] == hour["standard_deviation"]
        assert not any(key[0].startswith(("confidence", "predictions")) for key in samples)
        assert sum(start["histogram"]["texts"]) == 3
