"""The baselines do what they are said to do, with a fake session; and what is computed from their figures."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import anyio
import httpx2
import numpy as np
import pytest
import tokenizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from loadtest.baselines import page
from loadtest.baselines.chart import curve, draw
from loadtest.baselines.comparison import (
    OURS,
    SHARES,
    SYSTEMS,
    Agreement,
    Alone,
    Comparison,
    Highest,
    Point,
    Spread,
    read_comparison,
    rotated,
    write_comparison,
)
from loadtest.baselines.load import alone, labels, offer, saturate, short_tickets
from loadtest.baselines.padded import Answer, Array, PaddedModel
from loadtest.baselines.recipes import Article, MicroBatcher, NoBatching, Recipe
from loadtest.baselines.run import Plan, System, Visit, agreements, counted
from loadtest.baselines.search import MOST_PROBES, NARROW, bracket, highest
from loadtest.baselines.server import WARM_UP, create_app
from loadtest.measure import this_machine
from loadtest.processes import running_server
from loadtest.samples import Sample


class FakeSession:
    """Says label 1 for a text of two tokens or more, label 0 otherwise, and remembers what it was fed."""

    def __init__(self) -> None:
        self.feeds: list[dict[str, list[list[int]]]] = []

    def run(self, output_names: None, input_feed: Mapping[str, Array], /) -> list[Array]:
        assert output_names is None
        self.feeds.append({name: array.tolist() for name, array in input_feed.items()})
        lengths = input_feed["attention_mask"].sum(axis=1)
        return [np.array([[0.0, 1.0] if length >= 2 else [3.0, 1.0] for length in lengths], dtype=np.float32)]


def model(session: FakeSession) -> PaddedModel:
    words = {"[PAD]": 0, "[UNK]": 1, "card": 2, "crash": 3, "plan": 4}
    tokenizer = tokenizers.Tokenizer(WordLevel(words, unk_token="[UNK]"))  # noqa: S106 - a token of the vocabulary
    tokenizer.pre_tokenizer = Whitespace()
    return PaddedModel(session, tokenizer, ["billing", "technical"], max_length=3, temperature=1.0)


@dataclass
class Passes:
    """A model that answers a text with itself; holds its passes until `opened`, and fails on what is in `bad`."""

    batches: list[list[str]] = field(default_factory=list)
    opened: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    bad: str = ""

    def __call__(self, texts: Sequence[str]) -> list[Answer]:
        self.batches.append(list(texts))
        self.entered.set()
        assert self.opened.wait(20)
        if self.bad in texts:
            raise ArithmeticError("not finite")
        return [Answer(text, 1.0) for text in texts]


@pytest.fixture
def passes() -> Passes:
    made = Passes()
    made.opened.set()
    return made


def predictions(answers: Sequence[Answer | BaseException]) -> list[str]:
    assert not [answer for answer in answers if not isinstance(answer, Answer)]
    return [answer.prediction for answer in answers if isinstance(answer, Answer)]


async def classify_all(recipe: Recipe, *texts: str) -> list[Answer | BaseException]:
    with anyio.fail_after(20):
        return await asyncio.gather(*map(recipe.classify, texts), return_exceptions=True)


def test_texts_are_padded_to_the_longest_and_cut_at_the_limit() -> None:
    session = FakeSession()
    answers = model(session).predict(["card", "crash plan plan plan plan", "what crash"])
    assert session.feeds == [
        {"input_ids": [[2, 0, 0], [3, 4, 4], [1, 3, 0]], "attention_mask": [[1, 0, 0], [1, 1, 1], [1, 1, 0]]},
    ]
    assert [answer.prediction for answer in answers] == ["billing", "technical", "technical"]
    assert answers[0].confidence == pytest.approx(1 / (1 + np.exp(-2)))


def test_a_bundle_that_was_not_built_padded_is_refused() -> None:
    import onnxruntime as ort

    from models.bundle import embedded_bundle

    with pytest.raises(ValueError, match="--engine padded"):
        PaddedModel.open(embedded_bundle(), ort.SessionOptions())


async def test_a_full_batch_leaves_before_its_window_is_over_and_each_caller_gets_its_own_answer(passes: Passes) -> None:
    batcher = MicroBatcher(passes, 1, window=60, max_texts=3)
    async with batcher.running():
        assert predictions(await classify_all(batcher, "a", "b", "c")) == ["a", "b", "c"]
    assert passes.batches == [["a", "b", "c"]]


async def test_texts_of_one_window_share_a_pass_when_it_is_over(passes: Passes) -> None:
    batcher = MicroBatcher(passes, 2, window=0.02)
    async with batcher.running():
        assert predictions(await classify_all(batcher, "a", "b")) == ["a", "b"]
        assert predictions(await classify_all(batcher, "alone")) == ["alone"]
    assert passes.batches == [["a", "b"], ["alone"]]


async def test_a_lone_text_waits_for_the_whole_window(passes: Passes) -> None:
    batcher = MicroBatcher(passes, 1, window=60)
    async with batcher.running():
        waiting = asyncio.create_task(batcher.classify("a"))
        await anyio.wait_all_tasks_blocked()
        assert passes.batches == []
        waiting.cancel()


async def test_while_all_passes_are_busy_the_next_batch_fills() -> None:
    passes = Passes()
    batcher = MicroBatcher(passes, 1, window=0, max_texts=3)
    async with batcher.running():
        first = asyncio.create_task(batcher.classify("a"))
        assert await asyncio.to_thread(passes.entered.wait, 20)
        second = asyncio.create_task(batcher.classify("b"))
        await anyio.wait_all_tasks_blocked()
        others = asyncio.create_task(classify_all(batcher, "c", "d", "e"))
        await anyio.wait_all_tasks_blocked()
        passes.opened.set()
        assert predictions([await first, await second, *await others]) == ["a", "b", "c", "d", "e"]
    assert passes.batches == [["a"], ["b", "c", "d"], ["e"]]


async def test_a_failing_pass_fails_its_own_texts_only(passes: Passes) -> None:
    passes.bad = "bad"
    batcher = MicroBatcher(passes, 1, window=0.01)
    async with batcher.running():
        assert [type(answer) for answer in await classify_all(batcher, "a", "bad")] == [ArithmeticError] * 2
        assert predictions(await classify_all(batcher, "b")) == ["b"]


async def test_a_caller_that_leaves_does_no_harm_to_the_others(passes: Passes) -> None:
    batcher = MicroBatcher(passes, 1, window=60, max_texts=2)
    async with batcher.running():
        leaving = asyncio.create_task(batcher.classify("left"))
        await anyio.wait_all_tasks_blocked()
        leaving.cancel()
        assert predictions(await classify_all(batcher, "b")) == ["b"]
        assert predictions(await classify_all(batcher, "c", "d")) == ["c", "d"]


def together(texts: Sequence[str], barrier: threading.Barrier) -> list[Answer]:
    """A pass that ends only when another one runs beside it."""
    barrier.wait(20)
    return [Answer(text, 1.0) for text in texts]


@pytest.mark.parametrize("make", [lambda predict: NoBatching(predict, 2), Article])
async def test_without_a_batcher_each_text_has_its_own_pass_and_passes_run_side_by_side(
    make: Callable[[Callable[[Sequence[str]], list[Answer]]], Recipe],
) -> None:
    barrier, sizes = threading.Barrier(2), []

    def predict(texts: Sequence[str]) -> list[Answer]:
        sizes.append(len(texts))
        return together(texts, barrier)

    recipe = make(predict)
    async with recipe.running():
        assert predictions(await classify_all(recipe, "a", "b", "c", "d")) == ["a", "b", "c", "d"]
    assert sizes == [1, 1, 1, 1]


@asynccontextmanager
async def served(recipe: Recipe) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(recipe)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_the_endpoint_answers_as_ours_does(passes: Passes) -> None:
    async with served(NoBatching(passes, 1)) as client:
        assert (await client.get("/ready")).status_code == 200
        assert passes.batches == [[text] for text in WARM_UP]
        answer = await client.post("/classify", json={"text": "card"})
        assert answer.json() == {"prediction": "card", "confidence": 1.0}


async def test_what_is_wrong_with_a_request_or_a_pass_is_said_and_the_next_is_answered(passes: Passes) -> None:
    passes.bad = "bad"
    async with served(MicroBatcher(passes, 1, window=0)) as client:
        statuses = [
            (await client.post("/classify", content=content)).status_code
            for content in ("{", "[]", "{}", '{"text": 1}', '{"text": "bad"}', '{"text": "card"}')
        ]
    assert statuses == [400, 400, 400, 422, 500, 200]


FAKE_BASELINE = """
import sys, time
from loadtest.baselines import server
from loadtest.baselines.padded import Answer
from loadtest.baselines.recipes import NoBatching

def predict(texts):
    if texts[0].endswith(" hang"):
        time.sleep(60)
    return [Answer("billing", 0.9) for _ in texts]

server.RECIPES = {"fake": lambda bundle: NoBatching(predict, 2)}
server.main(["fake", "no-bundle"])
"""


def test_a_baseline_in_a_process_of_its_own_takes_load_and_ends_at_once_whatever_still_runs() -> None:
    with running_server([sys.executable, "-c", FAKE_BASELINE], {}) as server:
        url = server.url
        samples = offer(url, 100, 1, seed=3, patience=20)
        assert {sample.outcome for sample in samples} == {"ok"}
        assert 60 < len(samples) < 150
        assert labels(url, ["a", "b", "c"], clients=2) == ["billing"] * 3
        assert 0 < alone(url, short_tickets(), 5, patience=20) < 20
        assert saturate(url, short_tickets(), clients=2, seconds=0.3) > 0
        with pytest.raises(TimeoutError):
            labels(url, ["please hang"], clients=1, patience=0.1)


FAKE_MOSEC = """
from loadtest.baselines import mosec_server
from loadtest.baselines.padded import Answer

class Model:
    def predict(self, texts):
        return [Answer("billing", 0.9) for _ in texts]

class Fake(mosec_server.Classify):
    def __init__(self):
        self._model = Model()

if __name__ == "__main__":
    mosec_server.main("no-bundle", Fake)
"""


def test_mosec_is_a_baseline_with_the_same_answers_and_its_own_way_to_say_that_it_is_up(tmp_path: Path) -> None:
    script = tmp_path / "fake_mosec.py"  # a file, since its worker processes import it again
    script.write_text(FAKE_MOSEC, encoding="utf-8")
    with (tmp_path / "log").open("w+b") as log, running_server([sys.executable, str(script)], {}, log, "/") as server:
        assert labels(server.url, ["a", "b", "c"], clients=2) == ["billing"] * 3
        assert {sample.outcome for sample in offer(server.url, 50, 0.5, seed=3, patience=20)} == {"ok"}
        refused = httpx2.post(f"{server.url}/classify", json={"texts": ["a"]})
        assert (refused.status_code, "must be" in refused.text) == (422, True)


def test_short_texts_are_all_different_for_long() -> None:
    assert len(set(islice(short_tickets(), 9000))) == 9000


def test_a_spread_is_the_median_with_least_and_most() -> None:
    assert Spread.of([5.0, 1.0, 2.0]) == Spread(2.0, 1.0, 5.0)


def test_each_round_visits_all_and_none_is_first_twice() -> None:
    rounds = [rotated(SYSTEMS, repeat) for repeat in range(len(SYSTEMS))]
    assert all(set(order) == set(SYSTEMS) for order in rounds)
    assert len({order[0] for order in rounds}) == len(SYSTEMS)


def test_the_bracket_ends_at_the_lowest_rate_that_does_not_hold() -> None:
    assert bracket({10.0: True, 50.0: True, 80.0: True}, 150.0) == (80.0, 150.0)
    assert bracket({10.0: True, 50.0: False, 80.0: True}, 150.0) == (10.0, 50.0)
    assert bracket({10.0: False, 50.0: False}, 150.0) == (0.0, 10.0)


@pytest.mark.parametrize("limit", [11.0, 33.0, 97.0, 99.9])
def test_the_search_finds_the_limit_in_few_probes(limit: float) -> None:
    tried: list[float] = []

    def holds(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    low, too_high = highest(holds, 10.0, 100.0)
    assert len(tried) <= MOST_PROBES
    assert low <= limit < too_high
    assert too_high <= low * NARROW


def test_a_system_that_holds_at_no_rate_has_none() -> None:
    low, too_high = highest(lambda _: False, 0.0, 50.0)
    assert low == 0.0
    assert too_high < 10.0


def sample(intended: float, seconds: float, status: int = 200, outcome: str = "ok") -> Sample:
    return Sample(intended, intended, intended + seconds, status, outcome)


def test_a_point_counts_who_was_late_refused_and_left() -> None:
    samples = [
        sample(10.0, 0.1),
        sample(10.5, 0.3),
        sample(11.5, 0.2),
        sample(11.6, 0.01, 429, "429"),
        sample(11.7, 5.0, 0, "left"),
    ]
    figures = counted(samples, 1.6)
    assert (figures["sent"], figures["answered"], figures["in_time"], figures["refused"]) == (5, 3, 2, 1)
    assert figures["p50"] == pytest.approx(200)
    assert figures["p99"] == pytest.approx(298, abs=1)
    assert figures["achieved"] == pytest.approx(2 / 1.6)  # the third was answered when the run was over


def test_without_any_answer_there_is_no_latency() -> None:
    figures = counted([sample(0.0, 5.0, 0, "left")], 1.0)
    assert figures["p99"] is None
    assert figures["answered"] == 0


def point(system: str = OURS, load: str = "half", **changes: float | None) -> Point:
    found = Point(
        system=system,
        load=load,
        repeat=0,
        rate=100.0,
        seconds=2.0,
        sent=1000,
        answered=1000,
        in_time=1000,
        refused=0,
        achieved=100.0,
        p50=10.0,
        p99=20.0,
        server_cpu=0.5,
        client_cpu=0.1,
        other_cpu=0.0,
    )
    return found.model_copy(update=changes)


def test_the_bound_holds_only_if_all_but_one_in_a_hundred_of_all_requests_are_in_time() -> None:
    assert point(in_time=990).holds
    assert not point(in_time=989, answered=989).holds


class Scripted(Visit):
    """A visit whose measurements are given."""

    def __init__(self, found: Sequence[Point]) -> None:
        super().__init__(System(OURS, [], {}), 0, 100.0, Plan(1, 1.0, 1.0, attempts=2), sys.stderr.buffer)
        self._found = iter(found)

    def _try(self, load: str, rate: float) -> Point:
        assert rate > 0
        return next(self._found).model_copy(update={"load": load, "rate": rate})


def test_a_disturbed_measurement_is_made_again_and_the_less_disturbed_counts() -> None:
    quiet = [point()] * 2
    disturbed = [point(other_cpu=1.0, p99=500.0), point(other_cpu=0.4, p99=30.0)]
    overloaded = point(answered=500, in_time=0)
    visit = Scripted([*quiet, *disturbed, *[overloaded] * (MOST_PROBES + 1)])
    with visit:
        found = visit.run()
    assert [(found.load, found.rate) for found in visit.points[:3]] == [("light", 10.0), ("half", 50.0), ("80 %", 80.0)]
    assert visit.points[2].p99 == 30.0
    assert visit.points[-1].load == "overload"
    assert found.rate == 80.0
    assert 80.0 < found.too_high < 83.2


def test_baselines_have_the_interpreter_tuned_as_ours() -> None:
    show = "import gc, sys; print(sys.getswitchinterval(), gc.get_threshold(), gc.get_freeze_count() > 1000)"
    theirs = "from loadtest.baselines.server import tune_interpreter as tune; tune()"
    ours = "from server.serving import let_threads_in, quiet_garbage_collector; let_threads_in(); quiet_garbage_collector()"
    shown = [
        subprocess.run([sys.executable, "-c", f"{tune}\n{show}"], check=True, capture_output=True, text=True).stdout
        for tune in (theirs, ours)
    ]
    assert shown[0] == shown[1] == "0.0005 (50000, 10, 10) True\n"


def test_labels_are_compared_with_ours_and_with_the_right_ones() -> None:
    rows = agreements({OURS: ["a", "b", "a"], "article": ["a", "a", "b"]}, ["a", "b", "b"])
    assert rows == [
        Agreement(system=OURS, texts=3, same=3, right=2),
        Agreement(system="article", texts=3, same=1, right=2),
    ]


@pytest.fixture
def comparison() -> Comparison:
    points = [
        point(system, load, repeat=repeat, rate=100 * share, p99=20.0 + repeat + 100 * place, achieved=90.0 + repeat)
        for repeat in range(3)
        for place, system in enumerate(SYSTEMS)
        for load, share in SHARES.items()
    ]
    rates = {system: 300.0 / (place + 1) for place, system in enumerate(SYSTEMS)}
    return Comparison(
        started="2026-01-02T03:04:05+00:00",
        machine=this_machine(),
        packages={"onnxruntime": "1.0"},
        repeats=3,
        seconds=2.0,
        probe_seconds=1.0,
        patience=5.0,
        bound_ms=250.0,
        capacity=100.0,
        points=points,
        highest=[
            Highest(system=system, repeat=repeat, rate=rates[system] + repeat, too_high=400.0)
            for system in SYSTEMS
            for repeat in range(3)
        ],
        alone=[Alone(system=system, repeat=0, short_ms=1.5, ticket_ms=4.0, short_rate=800.0) for system in SYSTEMS],
        agreement=[Agreement(system=system, texts=200, same=196, right=180) for system in reversed(SYSTEMS)],
    )


def cells(table: str) -> list[list[str]]:
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]


def test_a_result_is_read_back_as_it_was_written(comparison: Comparison, tmp_path: Path) -> None:
    write_comparison(comparison, tmp_path / "result.json")
    assert read_comparison(tmp_path / "result.json") == comparison


def test_tables_show_medians_with_least_and_most_in_the_order_of_the_systems(comparison: Comparison) -> None:
    head, _, ours, window, *_ = cells(page.summary(comparison))
    assert head[2] == "light: p50 / p99 at 10/s"
    assert ours[1:] == ["301 (300 - 302) texts/s", "10.0 / 21.0", "10.0 / 21.0", "10.0 / 21.0", "91/s"]
    assert window[1:3] == ["151 (150 - 152) texts/s", "10.0 / 121"]
    assert len(cells(page.details(comparison))) == 2 + len(SYSTEMS) * len(SHARES)
    assert cells(page.agreement(comparison))[2] == ["SupportBot", "200", "98.0%", "90.0%"]
    assert cells(page.alone(comparison))[2][1:] == ["1.5", "4.0", "800"]
    assert "is 3.0 times that of mosec, no batching, one process per core; 4.0 times" in page.ratios(comparison)


def test_only_what_is_between_the_comments_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("before\n<!-- a: begin -->old<!-- a: end -->\n<!-- b: begin -->kept<!-- b: end -->\nafter\n", encoding="utf-8")
    page.put(file, "a", r"new \1")
    page.put(file, "missing", "nowhere")
    expected = "before\n<!-- a: begin -->\n\nnew \\1\n\n<!-- a: end -->\n<!-- b: begin -->kept<!-- b: end -->\nafter\n"
    assert file.read_text(encoding="utf-8") == expected
    page.put(file, "a", "newer")
    assert file.read_text(encoding="utf-8") == expected.replace(r"new \1", "newer")


def test_the_curve_takes_medians_of_near_rates_and_leaves_out_where_clients_left_early() -> None:
    points = [
        *(point(rate=rate, p99=p99) for rate, p99 in ((50.0, 30.0), (52.0, 10.0), (51.0, 20.0), (80.0, 40.0))),
        point(load="probe", rate=90.0, answered=900, p99=990.0),
        point(rate=150.0, answered=0, p99=None),
    ]
    assert curve(points) == [(51.0, 20.0), (80.0, 40.0)]


def test_the_chart_is_drawn(comparison: Comparison, tmp_path: Path) -> None:
    draw(comparison, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_has_a_place_for_every_table_and_shows_the_kept_result() -> None:
    root = Path(__file__).parents[2]
    text = (root / page.PAGE).read_text(encoding="utf-8")
    result = read_comparison(root / page.RESULT)
    for name, table in page.tables(result).items():
        assert f"<!-- {name}: begin -->\n\n{table}\n\n<!-- {name}: end -->" in text
