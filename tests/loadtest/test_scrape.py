from __future__ import annotations

import math

import pytest

from loadtest.scrape import batches_between, bucket_quantile, parse_metrics, passes_by_texts, scrape
from tests.loadtest.fake_server import FakeServer, serving


def metrics(passes: int, quick: int, slow: int, idle: int = 0) -> str:
    """The text of a server that has answered so many requests in 1 to 2 ms and so many in 4 to 8 ms, and refused 50."""
    answered = quick + slow
    return f"""\
# HELP supportbot_http_request_duration_seconds Time
# TYPE supportbot_http_request_duration_seconds histogram
supportbot_http_request_duration_seconds_bucket{{route="/classify",status="429",le="0.001"}} 50
supportbot_http_request_duration_seconds_bucket{{route="/classify",status="429",le="+Inf"}} 50
supportbot_http_request_duration_seconds_count{{route="/classify",status="429"}} 50
supportbot_http_request_duration_seconds_bucket{{route="/classify",status="200",le="0.001"}} 0
supportbot_http_request_duration_seconds_bucket{{route="/classify",status="200",le="0.002"}} {quick}
supportbot_http_request_duration_seconds_bucket{{route="/classify",status="200",le="0.004"}} {quick}
supportbot_http_request_duration_seconds_bucket{{route="/classify",status="200",le="0.008"}} {answered}
supportbot_http_request_duration_seconds_bucket{{route="/classify",status="200",le="+Inf"}} {answered}
supportbot_http_request_duration_seconds_count{{route="/classify",status="200"}} {answered}
# TYPE supportbot_passes counter
supportbot_passes_total{{end="done"}} {passes}
# TYPE supportbot_pass_texts histogram
supportbot_pass_texts_bucket{{le="1.0"}} {idle}
supportbot_pass_texts_bucket{{le="2.0"}} {idle}
supportbot_pass_texts_bucket{{le="4.0"}} {passes}
supportbot_pass_texts_bucket{{le="+Inf"}} {passes}
supportbot_pass_texts_count {passes}
supportbot_pass_texts_sum {passes * 4}
# TYPE supportbot_pass_tokens histogram
supportbot_pass_tokens_bucket{{le="+Inf"}} {passes}
supportbot_pass_tokens_count {passes}
supportbot_pass_tokens_sum {passes * 100}
# TYPE supportbot_flushes counter
supportbot_flushes_total{{reason="idle"}} {idle}
supportbot_flushes_total{{reason="full"}} {passes - idle}
supportbot_flushes_total{{reason="window"}} 0
# TYPE supportbot_attention_cells counter
supportbot_attention_cells_total {passes * 1000}
# TYPE supportbot_padded_attention_cells counter
supportbot_padded_attention_cells_total {passes * 1500}
# TYPE supportbot_queued_texts gauge
supportbot_queued_texts{{priority="interactive"}} 7
supportbot_queued_texts{{priority="bulk"}} 5
# TYPE process_cpu_seconds counter
process_cpu_seconds_total 12.5
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 2e8
"""


def test_the_run_is_what_the_figures_grew_by() -> None:
    before, after = parse_metrics(metrics(100, quick=1000, slow=0)), parse_metrics(metrics(150, quick=1060, slow=40, idle=20))
    found = batches_between(before, after)
    assert found is not None
    assert (found.passes, found.texts, found.tokens, found.requests) == (50, 4, 100, 100)
    assert (found.flushes, found.padding_ratio) == ({"idle": 20, "full": 30}, 1.5)
    assert found.sizes == {"1": 20, "3 to 4": 30}
    assert [found.server_p50, found.server_p99] == pytest.approx([1 + 50 / 60, 4 + 4 * 39 / 40])


def test_a_snapshot_has_what_is_now() -> None:
    snapshot = parse_metrics(metrics(1, 1, 1))
    assert snapshot is not None
    assert (snapshot.queued, snapshot.cpu, snapshot.rss) == (12, 12.5, 2e8)


def test_whether_drift_was_noticed_is_read_from_the_input_level() -> None:
    states = 'supportbot_drift_state{{level="{}",state="drift"}} {}\n'
    for text, drifting in (("", None), (states.format("input", 0.0), False), (states.format("input", 1.0), True)):
        snapshot = parse_metrics("supportbot_pass_texts_count 3.0\n" + states.format("output", 1.0) + text)
        assert snapshot is not None
        assert snapshot.drifting is drifting


def test_without_figures_at_both_ends_or_without_a_pass_there_are_none() -> None:
    snapshot = parse_metrics(metrics(100, 1, 1))
    assert batches_between(None, snapshot) is None
    assert batches_between(snapshot, None) is None
    assert batches_between(snapshot, snapshot) is None


def test_another_server_s_metrics_are_none_of_ours() -> None:
    assert parse_metrics("") is None
    assert parse_metrics("# TYPE up gauge\nup 1\n") is None


def test_passes_are_named_by_the_texts_that_they_had() -> None:
    buckets = [(1.0, 5.0), (2.0, 6.0), (4.0, 6.0), (8.0, 9.0), (math.inf, 10.0)]
    assert passes_by_texts(buckets) == {"1": 5, "2": 1, "5 to 8": 3, "over 8": 1}
    assert passes_by_texts([]) == {}


def test_quantiles_of_buckets() -> None:
    assert bucket_quantile([], 0.5) is None
    assert bucket_quantile([(0.001, 0), (float("inf"), 0)], 0.5) is None
    assert bucket_quantile([(0.001, 10), (float("inf"), 10)], 0.5) == pytest.approx(0.5)
    assert bucket_quantile([(0.001, 1), (float("inf"), 10)], 0.99) == pytest.approx(1.0)


def test_figures_are_scraped_and_a_server_without_them_or_gone_has_none() -> None:
    with serving(FakeServer(metrics=metrics(3, 4, 5))) as url:
        assert scrape(url) == parse_metrics(metrics(3, 4, 5))
    assert scrape(url) is None
    with serving(FakeServer()) as url:
        assert scrape(url) is None
