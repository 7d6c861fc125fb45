"""Drift detection in the server: texts to blocks in a thread, by a clock that the test turns; and over HTTP with a fake model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import httpx2
import numpy as np
import orjson
import pytest
from structlog.testing import capture_logs

from drift import LEVELS, Baseline, Layout, Monitor, Promise, State, Timeline
from models.fake import FakeClassifier
from models.types import Encoding, Prediction
from server.observe import drift as module
from server.observe.drift import STRATA, DriftError, DriftOptions, DriftWatch, read_baseline, read_profile
from server.observe.drift_log import Tally, read_blocks
from server.observe.prediction_log import PredictionLog
from server.settings import Settings
from tests.server.conftest import running, until
from tests.server.profiled import LABELS, PIECES, PROFILE, VOCABULARY, Profiled, drawn, learned, prediction

SettingsMaker = Callable[..., Settings]


class Clock:
    """Seconds since 1970, turned by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


OPTIONS = DriftOptions(block_seconds=60, learn_texts=600, learn_days=0)


@asynccontextmanager
async def watching(clock: Clock, options: DriftOptions = OPTIONS) -> AsyncIterator[DriftWatch]:
    watch = DriftWatch(PROFILE, PIECES, options, clock)
    try:
        yield watch
    finally:
        await watch.close(10)


async def minutes(watch: DriftWatch, clock: Clock, count: int, first_id: int = 10, seed: int = 7, per_minute: int = 20) -> None:
    """Let minutes go by, with as many texts in each."""
    for number in range(count):
        for ids in drawn(per_minute, 1000 * seed + number, first_id):
            watch.see(clock.now, f"r-{seed}-{number}", "text", ids, prediction(ids))
            clock.now += 60 / per_minute
        await watch.counts(0)


async def test_a_level_learns_is_well_and_notices_other_texts() -> None:
    clock = Clock()
    async with watching(clock) as watch:
        assert {state for state, _ in watch.told.levels.values()} == {State.LEARNING}
        await minutes(watch, clock, 40)
        report = await watch.report()
        assert report["levels"]["input"]["state"] == "ok"
        assert report["baseline"]["texts"] >= 600
        assert report["levels"]["outcome"]["state"] == "learning"  # there is no feedback
        began = clock.now
        with capture_logs() as logs:
            await minutes(watch, clock, 12, first_id=100, seed=8)
            report = await watch.report()
    level = report["levels"]["input"]
    assert level["state"] == "drift"
    assert level["severity"] == "warning"  # these texts are wrong more often, by what the profile has learned
    assert abs(datetime.fromisoformat(level["since"]).timestamp() - began) <= 120
    assert level["shift"]["low"] > 0.3
    assert level["channel"] in {channel.name for channel in PROFILE.layout.at("input")}
    assert level["detectable"]["0.5"] < level["detectable"]["0.1"]
    changes = [line for line in logs if line["event"] == "drift" and line["level"] == "input"]
    assert changes[-1]["state"] == "drift"
    assert changes[-1]["log_level"] == "warning"
    output = report["levels"]["output"]
    assert output["estimated_accuracy"] < output["estimated_accuracy_of_baseline"] - 0.05
    assert set(output["class_mix"]) == set(LABELS)
    assert all(each["low"] <= each["share"] <= each["high"] for each in output["class_mix"].values())
    assert all(example.startswith("r-8-") for example in level["examples"])


async def test_it_is_said_once_how_far_texts_are_from_those_that_the_model_was_checked_on() -> None:
    clock = Clock()
    with capture_logs() as logs:
        async with watching(clock) as watch:
            await minutes(watch, clock, 60)
            share = (await watch.report())["unusual_share"]
    (line,) = [line for line in logs if line["event"].startswith("texts compared")]
    assert (line["usual"], line["log_level"]) == (0.05, "info")
    assert line["accuracy"] == pytest.approx(0.9, abs=0.05)
    assert line["unusual"] is share is None  # this profile's score has too few values for bins at its quantiles


async def test_words_that_came_up_are_named_and_numbers_never() -> None:
    clock = Clock()
    async with watching(clock) as watch:
        await minutes(watch, clock, 90)  # an hour of them is usual afterwards
        await minutes(watch, clock, 12, first_id=100, seed=8)
        words = (await watch.report())["levels"]["input"]["words"]
    assert words["up"]
    assert {word["word"] for word in words["up"]} <= set(PIECES[100:141])
    assert all(word["now"] > word["before"] for word in words["up"])


async def test_repetitions_count_once_an_hour_and_too_many_texts_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    async with watching(clock) as watch:
        for _ in range(5):
            watch.see(clock.now, "r", "text", (11, 12, 13), prediction((11, 12, 13)))
        clock.now += 3600
        watch.see(clock.now, "r", "text", (11, 12, 13), prediction((11, 12, 13)))
        await watch.report()
        assert (watch.told.texts["counted"], watch.told.texts["repeated"]) == (2, 4)
        monkeypatch.setattr(module, "MOST_PENDING", 10)
        for ids in drawn(30, 4):
            watch.see(clock.now, "r", "text", ids, prediction(ids))
        await watch.report()
        assert watch.told.texts["missed"] == 20
        assert watch.told.texts["counted"] == 12


async def test_texts_that_cannot_be_scored_are_counted_as_failed_and_the_next_ones_are_well() -> None:
    clock = Clock()
    async with watching(clock) as watch:
        with capture_logs() as logs:
            watch.see(clock.now, "r", "a secret", (VOCABULARY + 5,), prediction((1,)))
            await watch.report()
        assert watch.told.texts["failed"] == 1
        assert "secret" not in str(logs)
        watch.see(clock.now, "r", "text", (11, 12), prediction((1,)))
        await watch.report()
        assert watch.told.texts["counted"] == 1


async def test_the_log_makes_the_same_decision_in_the_same_minute(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "predictions.jsonl"
    log = PredictionLog(path, max_bytes=1 << 24, files=1)
    states: list[tuple[int, dict[str, str]]] = []
    async with watching(clock) as watch:
        log.code_with(watch.codes)
        for number in range(60):
            for ids in drawn(12, 9000 + number, 10 if number < 52 else 100):
                given = prediction(ids)
                seen = watch.see(clock.now, "r", "text", ids, given)
                log.record("r", "text", given, len(ids), truncated=False, seen=seen, now=clock.now)
                clock.now += 5
            await watch.counts(0)
            states.append((int(clock.now // 60), {level: str(state) for level, (state, _) in watch.told.levels.items()}))
        await log.close(10)
        verdict = (await watch.report())["levels"]["input"]
    monitor = Monitor(PROFILE.layout, promise=Promise(), strata=STRATA, learn_texts=600, learn_blocks=0)
    replayed: dict[int, dict[str, str]] = {}

    def note(number: int, _: object) -> None:
        replayed[number + 1] = {level: str(state) for level, (state, _) in monitor.standing().items()}

    timeline = Timeline(monitor, note)
    for number, counts in read_blocks([path], PROFILE.layout, 60.0, Tally()):
        timeline.add(number, counts)
    timeline.close(int(clock.now // 60))
    assert verdict["state"] == "drift"
    assert [replayed[number] for number, _ in states] == [said for _, said in states]


async def test_a_text_that_cannot_be_scored_is_in_the_log_all_the_same(tmp_path: Path) -> None:
    path, clock = tmp_path / "predictions.jsonl", Clock()
    log = PredictionLog(path, max_bytes=1 << 24, files=1)
    async with watching(clock) as watch:
        log.code_with(watch.codes)
        for ids in ((VOCABULARY + 5,), (11, 12)):
            seen = watch.see(clock.now, "r", "text", ids, prediction((1,)))
            log.record("r", "text", prediction((1,)), 2, truncated=False, seen=seen, now=clock.now)
        await log.close(10)
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert ["drift" in line for line in lines] == [False, False]
    assert log.counts().written == 2


async def test_a_restart_goes_on_where_the_state_was_left(tmp_path: Path) -> None:
    clock, state = Clock(), tmp_path / "drift.json"
    options = DriftOptions(learn_texts=600, learn_days=0, state=state)
    async with watching(clock, options) as watch:
        await minutes(watch, clock, 40)
        before = await watch.report()
    async with watching(clock, options) as watch:
        after = await watch.report()
        for name in ("baseline", "since_baseline_or_alarm"):
            assert after[name] == before[name]
        await minutes(watch, clock, 12, first_id=100, seed=8)
        assert watch.told.levels["input"][0] is State.DRIFT
    assert state.stat().st_size < 300_000


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"layout": "other", "baseline": ""}'])
async def test_a_state_that_does_not_fit_is_set_aside(tmp_path: Path, content: bytes) -> None:
    state = tmp_path / "drift.json"
    state.write_bytes(content)
    with capture_logs() as logs:
        async with watching(Clock(), DriftOptions(state=state)) as watch:
            assert watch.told.levels["input"][0] is State.LEARNING
    assert state.with_name("drift.json.old").read_bytes() == content
    assert orjson.loads(state.read_bytes())["layout"] == PROFILE.layout.fingerprint
    assert "set aside" in logs[0]["event"]


async def test_a_state_of_another_baseline_is_set_aside(tmp_path: Path) -> None:
    clock, state = Clock(), tmp_path / "drift.json"
    async with watching(clock, DriftOptions(learn_texts=600, learn_days=0, state=state)) as watch:
        await minutes(watch, clock, 40)
    saved = orjson.loads(state.read_bytes())
    baseline = Baseline.from_json(saved["monitor"]["baseline"])
    async with watching(clock, DriftOptions(state=state, baseline=baseline)) as watch:
        assert watch.told.baseline_texts == baseline.texts
    assert state.with_name("drift.json.old").exists()


async def test_a_state_in_no_folder_is_refused_and_one_on_a_full_disk_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DriftError, match="there is no folder"):
        DriftWatch(PROFILE, PIECES, DriftOptions(state=tmp_path / "no" / "drift.json"))
    clock = Clock()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with capture_logs() as logs:
        async with watching(clock, DriftOptions(state=tmp_path / "drift.json")) as watch:
            await minutes(watch, clock, 5)
    assert [line["reason"] for line in logs if "cannot be written" in line["event"]] == ["No space left on device"]


async def test_the_present_is_accepted_with_a_note_and_too_few_texts_are_not() -> None:
    clock = Clock()
    async with watching(clock) as watch:
        await minutes(watch, clock, 40)
        await minutes(watch, clock, 12, first_id=100, seed=8)
        with pytest.raises(DriftError, match="a baseline needs 200"):
            await watch.accept("new shop")
        await minutes(watch, clock, 12, first_id=100, seed=9)
        texts = await watch.accept("new shop")
        assert 200 <= texts <= 480
        await minutes(watch, clock, 12, first_id=100, seed=10)
        report = await watch.report()
    assert report["levels"]["input"]["state"] == "ok"
    assert report["baseline"]["notes"][-1] == "new shop"


def test_profiles_and_baselines_of_other_models_are_refused(tmp_path: Path) -> None:
    content = PROFILE.to_bytes()
    assert read_profile(content, LABELS, VOCABULARY, 8).labels == LABELS
    vectors = learned(width=8).to_bytes()
    for width in (8, None):
        assert len(read_profile(vectors, LABELS, VOCABULARY, width).center) == 8
    with pytest.raises(DriftError, match="8 dimensions where the model has 16"):
        read_profile(vectors, LABELS, VOCABULARY, 16)
    with pytest.raises(DriftError, match="its channels are others"):
        read_profile(replace(PROFILE, layout=Layout(PROFILE.layout.channels[1:])).to_bytes(), LABELS, VOCABULARY, None)
    for labels, vocabulary in ((LABELS[::-1], VOCABULARY), (LABELS, VOCABULARY + 1)):
        with pytest.raises(DriftError, match="of another model"):
            read_profile(content, labels, vocabulary, None)
    with pytest.raises(DriftError, match="the bundle's profile"):
        read_profile(content[:-10], LABELS, VOCABULARY, None)
    file = tmp_path / "baseline.json"
    with pytest.raises(DriftError, match=r"DRIFT_PROFILE=.*No such file"):
        read_baseline(file, PROFILE)
    file.write_text("{}")
    with pytest.raises(DriftError, match="DRIFT_PROFILE="):
        read_baseline(file, PROFILE)
    other = Layout(PROFILE.layout.channels[:3])
    file.write_bytes(Baseline(other, np.ones((1, other.width), dtype=np.int64)).to_bytes())
    with pytest.raises(DriftError, match="another model"):
        read_baseline(file, PROFILE)


# --- over HTTP


def words(ids: tuple[int, ...]) -> str:
    return " ".join(PIECES[number] for number in ids)


async def test_a_server_watches_interactive_texts_and_tells(settings: SettingsMaker) -> None:
    async with running(settings(), Profiled) as app:
        for ids in drawn(5, 1):
            assert (await app.client.post("/classify", json={"text": words(ids)})).status_code == 200
        await app.client.post("/classify", json={"texts": [words(ids) for ids in drawn(3, 2)], "priority": "bulk"})
        body = (await app.client.get("/drift")).json()
        assert body["model"] == "fake@1"
        assert body["enabled"] is True
        assert [level["state"] for level in body["levels"].values()] == ["learning"] * len(LEVELS)
        assert body["last_hour_texts"] == 5
        metrics = (await app.client.get("/metrics")).text
        assert 'supportbot_drift_texts_total{outcome="counted"} 5.0' in metrics
        assert 'supportbot_drift_state{level="input",state="learning"} 1.0' in metrics
        counts = (await app.client.get("/drift/counts")).json()
        assert counts["layout"] == PROFILE.layout.fingerprint
        assert counts["channels"]
        assert "channels" not in (await app.client.get("/drift/counts?since=0")).json()
        for wrong in ("-1", "x", "1e3", "9" * 20):
            assert (await app.client.get(f"/drift/counts?since={wrong}")).status_code == 422


async def test_the_present_is_accepted_from_this_machine_only(settings: SettingsMaker) -> None:
    async with running(settings(drift_block_seconds=0.1), Profiled) as app:
        refused = await app.client.post("/drift/accept", json={"note": "all is well"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "too_few_texts")
        bodies: list[object] = [{}, {"note": ""}, {"note": 1}, {"note": "a", "more": 1}, {"note": "a" * 501}, []]
        for body in bodies:
            assert (await app.client.post("/drift/accept", json=body)).status_code == 422
        for ids in drawn(210, 5):
            await app.client.post("/classify", json={"text": words(ids)})
        await asyncio.sleep(0.15)  # what is counted is what closed blocks hold
        accepted = await app.client.post("/drift/accept", json={"note": "all is well"})
        assert accepted.status_code == 200
        assert accepted.json()["baseline_texts"] >= 200
        transport = httpx2.ASGITransport(app.app, client=("192.0.2.7", 4711), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            forbidden = await client.post("/drift/accept", json={"note": "all is well"})
        assert (forbidden.status_code, forbidden.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("model", "changes", "reason"),
    [(FakeClassifier, {}, "the bundle has no profile"), (Profiled, {"drift": False}, "it is turned off (DRIFT=false)")],
)
async def test_a_server_that_watches_nothing_says_why(
    settings: SettingsMaker, model: type[FakeClassifier], changes: dict[str, object], reason: str
) -> None:
    async with running(settings(**changes), model) as app:
        body = (await app.client.get("/drift")).json()
        assert body == {"model": "fake@1", "enabled": False, "reason": reason}
        off = await app.client.get("/drift/counts")
        assert (off.status_code, off.json()["error"]["code"]) == (404, "drift_off")
        assert (await app.client.post("/drift/accept", json={"note": "a"})).status_code == 404
        assert "supportbot_drift" not in (await app.client.get("/metrics")).text


async def test_answers_in_the_cache_are_without_their_vectors(settings: SettingsMaker) -> None:
    class Vectors(Profiled):
        def observe(self, encodings: Sequence[Encoding]) -> list[Prediction]:
            return [replace(found, first=np.ones(4, dtype=np.float32)) for found in self.predict(encodings)]

    async with running(settings(answer_cache_texts=10), Vectors) as app:
        text = words(drawn(1, 1)[0])
        await app.client.post("/classify", json={"text": text})
        cache = app.service._cache
        assert cache is not None
        kept = cache.get(text)
        assert kept is not None
        assert kept.prediction.first is None


async def test_a_baseline_that_cannot_be_used_stops_the_model(settings: SettingsMaker, tmp_path: Path) -> None:
    for model in (Profiled, FakeClassifier):
        async with running(settings(drift_profile=tmp_path / "none.json"), model) as app:
            await until(lambda app=app: app.service.readiness.reason != "")  # type: ignore[misc]
            assert "DRIFT_PROFILE=" in app.service.readiness.reason


async def test_the_state_is_written_at_the_end(settings: SettingsMaker, tmp_path: Path) -> None:
    state = tmp_path / "drift.json"
    async with running(settings(drift_state=state), Profiled) as app:
        for ids in drawn(30, 6):
            await app.client.post("/classify", json={"text": words(ids)})
    saved = orjson.loads(state.read_bytes())
    assert (
        Baseline.from_json(saved["monitor"]["present"]).texts + Layout(PROFILE.layout.channels).texts(np.array(saved["counts"]))
        == 30
    )
    await asyncio.sleep(0)
