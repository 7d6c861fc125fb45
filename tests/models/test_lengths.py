"""Lengths counted, and what other limits mean: the arithmetic, a file's survey, and one short measurement with the real engine."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.corpus import tickets
from models import passes
from models.bundle import Bundle, BundleError, embedded_bundle
from models.classifier import Classifier
from models.engines import Outputs
from models.lengths import LONGEST, Lengths, LengthSummary, logged_length, percent, percentile, summarize
from models.making.lengths import (
    CHUNK,
    CHUNKS,
    KEPT,
    MOST_MEASURED,
    SHOWN_BAD_ROWS,
    BatchLimits,
    Cost,
    Limit,
    LongEngine,
    Survey,
    batches,
    chunks,
    compare,
    limits_of,
    longest_of_batches,
    measure,
    open_engine,
    recommendation,
    shortened,
    survey,
)
from models.tables import TableError, TableFormat
from models.types import Encoding

BATCH = BatchLimits(texts=32, tokens=512)
token_counts = st.lists(st.integers(1, 600), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(embedded_bundle())


@dataclass
class RecordingEngine:
    """An engine that computes nothing and remembers the lengths of each batch."""

    is_batch_invariant = True
    first_width: int | None = None
    seen: list[list[int]] = field(default_factory=list)

    def logits(self, encodings: Sequence[Encoding]) -> npt.NDArray[np.floating[Any]]:
        self.seen.append([len(encoding) for encoding in encodings])
        return np.zeros((len(encodings), 2), dtype=np.float32)

    def outputs(self, encodings: Sequence[Encoding]) -> Outputs:
        return Outputs(self.logits(encodings), None)

    def divide(self, lengths: Sequence[int]) -> Sequence[Sequence[int]]:
        return [range(len(lengths))]


def texts(lengths: Sequence[int]) -> list[Encoding]:
    return [Encoding(tuple(range(100, 100 + length)), truncated=False) for length in lengths]


def counted(whole: Sequence[int], cut: Sequence[int] = ()) -> Lengths:
    lengths = Lengths()
    for tokens in whole:
        lengths.add(tokens, cut=False)
    for tokens in cut:
        lengths.add(tokens, cut=True)
    return lengths


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


# --- counting


@given(token_counts, st.integers(1, 100))
def test_a_percentile_is_the_smallest_length_that_so_many_do_not_exceed(values: list[int], percents: int) -> None:
    found = percentile(counted(values).counts, percents)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percents * len(values)
    assert sum(value < found for value in values) * 100 < percents * len(values)


def test_a_percentile_is_not_a_victim_of_rounding() -> None:
    # 0.95 * 20 and its like are not always whole numbers in floating point.
    assert [percentile([0] + [1] * 100, percents) for percents in (7, 14, 28, 55, 95)] == [7, 14, 28, 55, 95]


def test_a_summary_has_the_figures_and_none_of_them_without_texts() -> None:
    assert summarize([0, 98, 0, 2], 2) == LengthSummary(100, 1.04, 1, 1, 1, 3, 3, 0.02)
    assert summarize([0, 0, 0], 0) == LengthSummary(0, 0.0, 0, 0, 0, 0, 0, 0.0)


@settings(max_examples=30)
@given(token_counts, st.integers(1, 700))
def test_shares_at_a_limit_are_those_of_cutting_there(values: list[int], limit: int) -> None:
    lengths = counted(values)
    kept = sum(min(value, limit) for value in values)
    assert lengths.truncated(limit) == sum(value > limit for value in values) / len(values)
    assert lengths.mean(limit) == pytest.approx(kept / len(values))
    assert lengths.lost(limit) == pytest.approx(1 - kept / sum(values))
    assert lengths.summary(limit).truncated == lengths.truncated(limit)


def test_a_cut_text_is_over_every_limit_up_to_where_that_is_known() -> None:
    lengths = counted([10, 20], cut=[256, 9])
    assert (lengths.texts, lengths.cut, lengths.horizon) == (4, 2, 256)
    assert [lengths.truncated(limit) for limit in (256, 19, 9)] == [0.5, 0.75, 1.0]
    assert counted([10]).horizon == LONGEST


@settings(max_examples=30)
@given(token_counts)
def test_every_text_is_in_one_bin_of_the_histogram(values: list[int]) -> None:
    bins = counted(values).histogram()
    for found in bins:
        assert found.texts == sum(found.first <= value <= found.last for value in values)
    assert sum(found.texts for found in bins) == len(values)
    assert bins[0].texts
    assert bins[-1].texts
    assert counted([]).histogram() == []
    assert counted([LONGEST]).histogram()[0].last == LONGEST


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"tokens": 7, "truncated": false, "label": "billing"}\n', (7, False)),
        (b'{"tokens": 8192, "truncated": true}', (8192, True)),
        (b'{"tokens": null, "truncated": true}', (None, True)),
        (b'{"truncated": true, "text": "a"}', None),
        (b'{"tokens": 8193, "truncated": true}', None),
        (b'{"tokens": 0, "truncated": false}', None),
        (b'{"tokens": true, "truncated": false}', None),
        (b'{"tokens": 7.0, "truncated": false}', None),
        (b'{"tokens": 7, "truncated": 0}', None),
        (b'{"tokens": 7}', None),
        (b"[7, false]", None),
        (b'{"tokens": 7, "trunc', None),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)
def test_a_log_line_is_a_record_or_nothing(line: bytes, expected: tuple[int | None, bool] | None) -> None:
    assert logged_length(line) == expected


def test_what_is_not_nothing_does_not_read_as_nothing() -> None:
    assert [percent(share) for share in (0, 0.00001, 0.001, 0.0234, 1)] == ["0.0 %", "under 0.1 %", "0.1 %", "2.3 %", "100.0 %"]


# --- surveys


def surveyed(path: Path, bundle: Bundle) -> Survey:
    return survey(path, bundle, TableFormat(), lambda: None, print)


def test_texts_are_counted_beyond_the_limit_and_what_cannot_be_is_set_apart(tmp_path: Path, bundle: Bundle) -> None:
    path = write(tmp_path / "texts.jsonl", {"body": "payment failed"}, {"body": " "}, {"body": "\u200b"}, {"text": 1})
    with path.open("ab") as stream:
        stream.write(b'{"body": "\xff"}\n{\n' + json.dumps({"body": "why " * 400}).encode() + b"\n")
    rows: list[None] = []
    found = survey(path, bundle, TableFormat(text_column="body"), lambda: rows.append(None), print)
    assert found.lengths.summary(256) == LengthSummary(2, 203.0, 4, 402, 402, 402, 402, 0.5)
    assert (found.left_out, found.bad_rows, found.is_log, len(rows)) == (2, 3, False, 7)
    assert [(row.line, row.reason.partition(":")[0].partition(";")[0]) for row in found.bad] == [
        (4, "no 'body'"),
        (5, "not JSON"),
        (6, "not JSON"),
    ]


def test_csv_and_lines_are_read_and_so_is_a_pipe(tmp_path: Path, bundle: Bundle) -> None:
    table, lines, pipe = tmp_path / "a.tsv", tmp_path / "a.txt", tmp_path / "pipe"
    table.write_text("id\ttext\n1\tpayment failed\n", encoding="utf-8")
    lines.write_text("\ufeff\npayment failed\n\n", encoding="utf-8")
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(lines.read_bytes()))
    writer.start()
    for path, blank in ((table, 0), (lines, 1), (pipe, 1)):
        found = surveyed(path, bundle)
        assert (found.lengths.counts[4], found.lengths.texts, found.left_out) == (1, 1, blank)
    writer.join()


def test_a_huge_text_is_counted_up_to_a_bound_and_called_cut(tmp_path: Path, bundle: Bundle) -> None:
    path = write(tmp_path / "texts.jsonl", {"text": "late " * 200_000}, {"text": "app" + " " * 600_000 + "crashed"})
    lengths = surveyed(path, bundle).lengths
    # The second is read up to its white space.
    assert (lengths.cut, lengths.counts[LONGEST], lengths.counts[3], lengths.texts) == (1, 1, 1, 2)
    assert lengths.horizon == LONGEST


def test_a_prediction_log_is_known_by_its_records_and_its_lengths_end_at_its_limit(tmp_path: Path, bundle: Bundle) -> None:
    record = {"time": "2026-11-25T10:00:00Z", "label": "billing", "confidence": 0.9}
    cached = record | {"tokens": None, "truncated": False}
    path = write(tmp_path / "predictions.jsonl.1", cached, record | {"tokens": 9, "truncated": False}, record)
    with path.open("a") as stream:
        stream.write('\n{"time": "2026-1\n' + json.dumps({"tokens": 256, "truncated": True}))
    found = surveyed(path, bundle)
    assert found.is_log
    assert (found.lengths.texts, found.lengths.cut, found.lengths.horizon, found.left_out) == (2, 1, 256, 1)
    assert [(row.line, "not a record" in row.reason) for row in found.bad] == [(3, True), (5, True)]
    assert [len(encoding) for encoding in found.sample] == [9, 256]
    assert limits_of(found.lengths, 256) == [32, 64, 128, 256]


def test_a_prediction_log_with_texts_is_tokenized_anew(tmp_path: Path, bundle: Bundle) -> None:
    path = write(tmp_path / "predictions.jsonl.2", {"text": "why " * 400, "tokens": 256, "truncated": True})
    found = surveyed(path, bundle)
    assert (found.is_log, found.lengths.cut, found.lengths.summary(256).longest) == (False, 0, 402)


def test_a_sample_stays_small_and_is_drawn_from_the_whole_file(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(
        "".join(f'{{"tokens": {length}, "truncated": false}}\n' for length in (600, 3, 700) for _ in range(KEPT)), encoding="utf-8"
    )
    sample = surveyed(path, bundle).sample
    assert len(sample) == KEPT
    # As long as any limit that is measured, and no longer.
    assert {len(encoding) for encoding in sample} == {3, 512}
    assert 0.25 < sum(len(encoding) == 3 for encoding in sample) / KEPT < 0.42


def test_only_the_first_bad_rows_are_kept(tmp_path: Path, bundle: Bundle) -> None:
    found = surveyed(write(tmp_path / "a.jsonl", *[{}] * (SHOWN_BAD_ROWS + 5)), bundle)
    assert (len(found.bad), found.bad_rows, found.lengths.texts) == (SHOWN_BAD_ROWS, SHOWN_BAD_ROWS + 5, 0)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, bundle: Bundle) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(TableError, match=str(path)):
            surveyed(path, bundle)


def test_a_broken_tokenizer_is_the_bundle_s_fault(tmp_path: Path, bundle: Bundle) -> None:
    broken = Bundle(bundle.manifest, b"", b"{}")
    with pytest.raises(BundleError, match="tokenizer"):
        surveyed(write(tmp_path / "a.jsonl", {"text": "a"}), broken)


# --- limits and their cost


def test_the_limits_are_powers_of_two_and_the_bundle_s_own() -> None:
    assert limits_of(counted([9]), 256) == [32, 64, 128, 256, 512]
    assert limits_of(counted([9]), 100) == [32, 64, 100, 128, 256, 512]
    assert limits_of(counted([9]), 16) == [16, 32, 64, 128, 256, 512]
    assert limits_of(counted([9]), 1024)[-1] == 1024
    # Which texts a log's limit cut is known, how long they were is not.
    assert limits_of(counted([9], cut=[100]), 256) == [32, 64]


@settings(max_examples=30)
@given(token_counts)
def test_a_limit_above_all_texts_changes_neither_tokens_nor_batches_nor_passes(values: list[int]) -> None:
    encodings = texts(values)
    filled = batches(encodings, BATCH)
    planned = [passes.plan([len(encoding) for encoding in batch]) for batch in filled]
    for limit in (max(values), 600, 8192):
        cut = [shortened(encoding, limit) for encoding in encodings]
        assert cut == encodings
        assert [passes.plan([len(encoding) for encoding in batch]) for batch in batches(cut, BATCH)] == planned
        assert counted(values).mean(limit) == counted(values).mean(LONGEST)


def test_a_limit_shortens_long_texts_and_no_other() -> None:
    cut = [shortened(encoding, 64) for encoding in texts([3, 64, 65, 400])]
    assert [(len(encoding), encoding.truncated) for encoding in cut] == [(3, False), (64, False), (64, True), (64, True)]


@given(token_counts, st.integers(1, 8), st.integers(1, 700))
def test_batches_keep_the_order_and_the_limits(values: list[int], most_texts: int, most_tokens: int) -> None:
    filled = batches(texts(values), BatchLimits(most_texts, most_tokens))
    lengths = [[len(encoding) for encoding in batch] for batch in filled]
    assert [length for batch in lengths for length in batch] == values
    for batch, following in zip(lengths, [*lengths[1:], [10_000]], strict=True):
        assert len(batch) == 1 or (len(batch) <= most_texts and sum(batch) <= most_tokens)
        assert len(batch) == most_texts or sum(batch) + following[0] > most_tokens


@pytest.mark.parametrize("count", [1, CHUNK - 1, CHUNK, 3 * CHUNK + 1, 1000])
def test_each_chunk_is_a_small_picture_of_the_sample(count: int) -> None:
    parts = chunks([Encoding(ids, truncated=False) for ids in ((0,) * length for length in range(1, count + 1))])
    assert len(parts) == max(1, min(CHUNKS, count // CHUNK))
    drawn = [len(encoding) for part in parts for encoding in part]
    assert len(set(drawn)) == len(drawn)
    assert all(len(part) == min(CHUNK, count) for part in parts)
    for part in parts:
        lengths = sorted(len(encoding) for encoding in part)
        assert lengths[0] <= count / len(lengths) + 1
        assert lengths[-1] >= count - count / len(lengths)


def test_the_longest_of_a_random_batch_is_drawn_from_its_own_distribution() -> None:
    # A text in a hundred is long: a batch of 32 has one with probability 1 - 0.99 ** 32 = 0.275.
    sample = texts([10] * 990 + [500] * 10)
    drawn = longest_of_batches(sample, 32, 1000)
    assert sum(length == 500 for length in drawn) == pytest.approx(275, abs=2)
    assert longest_of_batches(sample, 1, 100).count(500) == 1


def test_a_measurement_runs_the_same_texts_at_every_limit_and_ends_without_time() -> None:
    engine, told = RecordingEngine(), list[float]()
    sample = texts([8] * 20 + [40] * 10 + [300] * 2)
    costs = measure(engine, sample, [32, 256, 512], BATCH, 0, told.append)
    assert list(costs) == [32, 256, 512]
    assert len(told) == 3
    served = [batch for batch in engine.seen if len(set(batch)) > 1]
    by_limit = [sorted(length for batch in served if max(batch) == limit for length in batch) for limit in (32, 256, 300)]
    assert all(by_limit)
    # The fixed-length recipe: passes as full as they come, of texts of exactly the limit.
    assert [32] * 16 in engine.seen
    assert [256] * 2 in engine.seen
    # Before the clock starts and then, but not for texts padded to the longest in a batch: that has 300 tokens.
    assert engine.seen.count([512]) == 2
    # A text of median length by itself is the same at all three.
    assert engine.seen.count([8]) == 15


def test_a_cost_is_the_mean_over_chunks_of_the_median_over_visits() -> None:
    from models.making.lengths import _typical

    def cost(value: float) -> Cost:
        return Cost(value, 2 * value, 3 * value, 4 * value)

    assert _typical([[cost(1), cost(100), cost(3)], [cost(5)]]) == Cost(4, 8, 12, 16)


def test_the_long_engine_gives_the_bundle_s_own_logits_within_the_limit_and_works_beyond(
    bundle: Bundle, classifier: Classifier
) -> None:
    engine = LongEngine(bundle)
    alike = [classifier.encode(text) for text in islice(tickets(1), 2)]
    alike.sort(key=len, reverse=True)  # the order of the passes
    assert np.array_equal(engine.logits(alike), classifier.logits(alike))
    assert engine.logits([Encoding((alike[0].ids * 40)[:700], truncated=False)]).shape == (1, 3)


def test_an_engine_is_measured_as_far_as_it_can_read(bundle: Bundle) -> None:
    assert open_engine(bundle)[1] == 512
    long = Bundle(bundle.manifest.model_copy(update={"max_length": 8192}), bundle.model, bundle.tokenizer)
    assert open_engine(long)[1] == MOST_MEASURED
    padded = Bundle(bundle.manifest.model_copy(update={"engine": "padded"}), bundle.model, bundle.tokenizer)
    with pytest.raises(BundleError, match="inputs"):  # this graph is no padded one, and would have been opened as such
        open_engine(padded)


def test_a_short_run_measures_every_limit_and_long_texts_alone_make_it_dearer(tmp_path: Path, bundle: Bundle) -> None:
    path = write(tmp_path / "texts.jsonl", *({"text": text} for text in islice(tickets(1), 40)), {"text": "why " * 400})
    found = surveyed(path, bundle)
    limits = compare(found, bundle, BATCH, 0.01, lambda _: None)
    assert [limit.limit for limit in limits] == [32, 64, 128, 256, 512]
    costs = [limit.cost for limit in limits]
    assert all(costs)
    for cost in filter(None, costs):
        assert min(cost.served, cost.alone, cost.batch_padded, cost.limit_padded) > 0
    assert [limit.truncated for limit in limits][-2:] == [1 / 41, 0]
    assert all(limit.cost is None for limit in compare(found, bundle, BATCH, 0, lambda _: None))


# --- the recommendation


def limits(*rows: tuple[int, float, float | None]) -> list[Limit]:
    return [
        Limit(limit, truncated, 0.0, 30.0, None if served is None else Cost(served, 1.0, 9.0, 9.0))
        for limit, truncated, served in rows
    ]


def test_a_limit_that_cuts_few_enough_is_kept_although_a_lower_one_would_do() -> None:
    found = limits((64, 0.02, 2.0), (128, 0.005, 2.4), (256, 0.001, 2.5), (512, 0.0, 2.5))
    assert recommendation(found, counted([9]), 256, 0.005) == (
        "keep 256: it cuts 0.1 % of the texts; 128 would cut 0.5 % and save 4.0 % of the compute, since short texts pay nothing for"
        " a high limit"
    )
    assert "save nothing" in recommendation(limits((128, 0.0, 2.46), (256, 0.0, 2.5)), counted([9]), 256, 0.005)
    assert recommendation(found, counted([9]), 256, 0.004) == (
        "keep 256: it cuts 0.1 % of the texts, and every lower limit would cut too many"
    )


def test_the_smallest_limit_that_cuts_few_enough_is_wanted_and_what_it_costs_is_said() -> None:
    found = limits((128, 0.04, 2.0), (256, 0.0064, 2.0), (512, 0.005, 2.2))
    assert recommendation(found, counted([9]), 256, 0.005) == (
        "build the bundle with --max-length 512, if the checkpoint has as many positions: that cuts 0.5 % of the texts instead of"
        " 0.6 %, at 10.0 % more compute"
    )
    assert "at the same compute" in recommendation(limits((256, 0.04, 2.5), (512, 0.0, 2.54)), counted([9]), 256, 0.005)
    assert "compute" not in recommendation(limits((256, 0.04, 2.0), (512, 0.0, None)), counted([9]), 256, 0.005)
    assert "--max-length 256," in recommendation(limits((128, 0.04, 2.0), (256, 0.0, 2.0), (512, 0.0, 2.0)), counted([9]), 128, 0)


def test_where_no_limit_is_enough_the_highest_is_named_or_kept() -> None:
    assert recommendation(limits((256, 0.09, 2.0), (512, 0.03, 3.0)), counted([9]), 256, 0.005).endswith(
        "at 50.0 % more compute; most encoders cannot read more"
    )
    assert recommendation(limits((256, 0.09, 2.0), (512, 0.03, 3.0)), counted([9]), 512, 0.005).startswith(
        "keep 512: 3.0 % of the texts are longer"
    )


def test_a_log_tells_nothing_beyond_its_limit() -> None:
    lengths = counted([9] * 9, cut=[256])
    known = limits((128, 0.1, 2.0), (256, 0.1, 2.0))
    for current in (256, 512):
        assert recommendation(known, lengths, current, 0.005) == (
            "10.0 % of the texts were cut at 256 tokens; how long they are is not in the log: run this command on the texts"
            " themselves"
        )
    assert recommendation(known, lengths, 256, 0.1).startswith("keep 256")
