"""Lengths in traffic, and what they advise."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.lengths import LengthSummary, summarize
from server.observe.lengths import FIRST_REPORT, LOG_BYTES, Advice, LengthStatistics, advise, from_prediction_log

USUAL = {"max_texts": 32, "max_tokens": 512}


def observed(limit: int, *texts: tuple[int, int, bool]) -> LengthStatistics:
    """Statistics of (count, tokens, truncated)."""
    found = LengthStatistics(limit)
    for count, tokens, truncated in texts:
        for _ in range(count):
            found.observe(tokens, truncated)
    return found


def alike(tokens: int, truncated: float = 0.0) -> LengthSummary:
    """A thousand texts of one length."""
    return summarize([0] * tokens + [1000], round(1000 * truncated))


def record(tokens: int, truncated: bool = False) -> str:
    return json.dumps({"time": "2026-11-25T10:00:00Z", "label": "billing", "tokens": tokens, "truncated": truncated}) + "\n"


# --- statistics


@settings(max_examples=50)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=200))
def test_a_summary_is_that_of_the_texts(values: list[int]) -> None:
    found = LengthStatistics(256)
    for value in values:
        found.observe(min(value, 256), value > 256)
    summary, ordered = found.summary(), sorted(min(value, 256) for value in values)
    assert summary.texts == len(values)
    assert summary.mean == pytest.approx(sum(ordered) / len(ordered))
    assert (summary.p50, summary.longest) == (ordered[(len(ordered) - 1) // 2], ordered[-1])
    assert summary.truncated == sum(value > 256 for value in values) / len(values)


def test_counts_are_kept_for_each_length_and_truncated_ones_at_the_limit() -> None:
    found = observed(4, (2, 1, False), (1, 4, False), (3, 4, True))
    assert (list(found.counts), found.truncated) == ([0, 2, 0, 0, 4], 3)


def test_nothing_was_seen_and_nothing_is_advised() -> None:
    found = LengthStatistics(256)
    assert found.summary() == LengthSummary(0, 0.0, 0, 0, 0, 0, 0, 0.0)
    assert found.report(**USUAL).recommendation is None
    assert not found.due()


def test_a_length_over_the_limit_is_a_bug_and_is_not_counted() -> None:
    found = LengthStatistics(256)
    with pytest.raises(IndexError):
        found.observe(257, truncated=True)
    assert found.summary().texts == 0


def test_the_first_report_is_due_after_a_thousand_texts_and_has_all_figures() -> None:
    found = observed(256, (FIRST_REPORT - 1, 20, False))
    assert not found.due()
    found.observe(256, truncated=True)
    assert found.due()
    report = found.take_report(**USUAL)
    assert report is not None
    assert report.facts() == {
        "texts": 1000,
        "mean": 20.236,
        "p50": 20,
        "p90": 20,
        "p95": 20,
        "p99": 20,
        "longest": 256,
        "truncated": 0.001,
        "recommendation": None,
    }
    assert not found.due()


def test_later_reports_are_due_at_powers_of_ten_and_told_only_if_the_advice_changed() -> None:
    found = observed(256, (1000, 20, False))
    assert found.take_report(**USUAL) is not None
    for _ in range(8999):
        found.observe(20, truncated=False)
    assert not found.due()
    found.observe(20, truncated=False)
    assert found.due()
    assert found.take_report(**USUAL) is None
    assert not found.due()
    for _ in range(90_000):
        found.observe(256, truncated=True)
    report = found.take_report(**USUAL)
    assert report is not None
    assert [advice.setting for advice in report.advice] == ["--max-length"]
    assert "90.0 % of the texts are over the limit of 256 tokens" in str(report.recommendation)


def test_a_report_that_comes_late_does_not_come_twice() -> None:
    found = observed(256, (12_000, 20, False))
    assert found.take_report(**USUAL) is not None
    assert not found.due()


def test_the_same_advice_with_other_figures_is_the_same_advice() -> None:
    found = observed(256, (900, 20, False), (100, 256, True))
    assert found.take_report(**USUAL) is not None
    for _ in range(9_000):
        found.observe(256, truncated=True)
    assert found.due()
    assert found.take_report(**USUAL) is None


# --- advice


def test_a_limit_is_spoken_against_when_it_cuts_more_than_half_a_per_cent() -> None:
    assert advise(alike(60, 0.005), 256, **USUAL) == ()
    (advice,) = advise(alike(60, 0.006), 256, **USUAL)
    assert (advice.setting, advice.value) == ("--max-length", None)
    assert advice.sentence.startswith("0.6 % of the texts are over the limit of 256 tokens and are cut")


@pytest.mark.parametrize("tokens", [4, 12, 35, 130, 256])
def test_the_usual_batch_limits_are_good_for_all_usual_lengths(tokens: int) -> None:
    assert advise(alike(tokens), 256, **USUAL) == ()


def test_batches_that_end_at_too_few_texts_are_spoken_against() -> None:
    # Starting a pass costs 6 tokens: 5 % more than it must when 97 tokens or fewer share it.
    assert advise(alike(13), 256, max_texts=8, max_tokens=512) == ()
    assert advise(alike(12), 256, max_texts=8, max_tokens=512) == (Advice("BATCH_MAX_TEXTS", 64, ""),)
    # More tokens than a pass holds are no reason for more texts.
    assert advise(alike(12), 256, max_texts=8, max_tokens=4096) == (Advice("BATCH_MAX_TEXTS", 64, ""),)
    # Nor are tokens that a batch may not have.
    assert advise(alike(12), 256, max_texts=8, max_tokens=96) == ()
    assert advise(alike(10), 256, max_texts=1, max_tokens=11) == (Advice("BATCH_MAX_TEXTS", 2, ""),)
    assert advise(alike(1), 256, max_texts=1, max_tokens=100_000) == (Advice("BATCH_MAX_TEXTS", 512, ""),)


def test_batches_of_a_single_short_text_are_spoken_against() -> None:
    assert advise(alike(32), 256, max_texts=32, max_tokens=64) == ()
    (advice,) = advise(alike(33), 256, max_texts=32, max_tokens=64)
    assert (advice.setting, advice.value) == ("BATCH_MAX_TOKENS", 512)
    assert "half of the texts have 33 tokens or more" in advice.sentence
    # A long text is worth a pass of its own.
    assert advise(alike(100), 256, max_texts=32, max_tokens=64) == ()


def test_all_advice_is_one_sentence() -> None:
    found = observed(64, (1000, 64, True))
    recommendation = found.report(max_texts=1, max_tokens=512).recommendation
    assert recommendation is not None
    assert "--max-length" in recommendation.split("; ")[0]
    assert recommendation.endswith("set BATCH_MAX_TEXTS=8")


# --- from a log


def test_an_earlier_run_s_log_gives_a_recommendation_at_once(tmp_path: Path) -> None:
    log = tmp_path / "predictions.jsonl"
    log.write_text(record(20) * 980 + record(256, truncated=True) * 20, encoding="utf-8")
    found = from_prediction_log([log], 256)
    assert (found.summary().texts, found.summary().truncated, found.due()) == (1000, 0.02, True)
    report = found.take_report(**USUAL)
    assert report is not None
    assert "2.0 % of the texts" in str(report.recommendation)


def test_broken_lines_missing_files_and_what_is_no_file_are_passed_over(tmp_path: Path) -> None:
    log, pipe = tmp_path / "predictions.jsonl", tmp_path / "pipe"
    os.mkfifo(pipe)
    log.write_bytes(
        b'kens": 9, "truncated": false}\n\n\xff\xfe\n[1]\n{"tokens": "9", "truncated": false}\n{"tokens": -1, "truncated": false}\n'
        + record(7).encode()
        + b'{"tokens": null, "truncated": false}\n'  # from the cache
        + b'{"tokens": 9, "trunc'
    )
    found = from_prediction_log([tmp_path / "none", pipe, tmp_path, log], 256)
    assert (found.summary().texts, found.summary().longest) == (1, 7)


def test_a_log_of_another_limit_is_read_for_this_one(tmp_path: Path) -> None:
    log = tmp_path / "predictions.jsonl"
    log.write_text(
        record(300)  # over this limit, whole under that one
        + record(512, truncated=True)
        + record(256)
        + record(256, truncated=True)
        + record(128, truncated=True),  # says nothing about 256
        encoding="utf-8",
    )
    summary = from_prediction_log([log], 256).summary()
    assert (summary.texts, summary.truncated, summary.longest) == (4, 0.75, 256)


def test_only_the_end_of_the_newest_logs_is_read(tmp_path: Path) -> None:
    newest, older = tmp_path / "predictions.jsonl", tmp_path / "predictions.jsonl.1"
    older.write_text(record(9) * 5 + record(8), encoding="utf-8")
    newest.write_text(record(7) * 3, encoding="utf-8")
    assert from_prediction_log([newest, older], 256).summary().texts == 9
    four = from_prediction_log([newest, older], 256, lines=4).summary()
    assert (four.texts, four.longest, four.mean) == (4, 8, (3 * 7 + 8) / 4)
    newest.write_text(record(100) + "x" * LOG_BYTES + "\n" + record(7) * 2, encoding="utf-8")
    summary = from_prediction_log([newest, older], 256).summary()
    assert (summary.texts, summary.longest) == (2, 7)
