"""What is read from a prediction log, whatever is in it; tests/commands/drift reads whole ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.observe.drift_log import Tally, read_blocks, read_labels, read_log
from tests.commands.drift.logs import LAYOUT, MIDNIGHT, lines, minutes, write_log

GOOD = [json.loads(line) for line in lines(minutes(1))]
values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.lists(st.integers(), max_size=2)
)
codes = values | st.text("ABCD.~", max_size=12).map(lambda rest: LAYOUT.mark + rest)
times = values | st.sampled_from(["0001-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "2026-01-01T00:00:00", "2026-01-01"])
damaged = st.builds(
    lambda record, key, value: json.dumps({**record, key: value}),
    st.sampled_from(GOOD),
    st.sampled_from(["drift", "time", "request_id", "label", "confidence", "text"]),
    codes | times,
)
one_line = (
    damaged | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=20) | values.map(json.dumps)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(one_line, max_size=8))
def test_every_line_is_counted_once_whatever_it_is(tmp_path: Path, written: list[str]) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{line}\n" for line in written), encoding="utf-8")
    tally, labels = Tally(), {GOOD[0]["request_id"]: ["billing"]}
    texts = sum(len(logged.bins) for logged in read_log(log, LAYOUT, tally, labels))
    assert tally.lines == len(written)
    assert texts == tally.counted


def test_blocks_are_minutes_and_files_are_merged_by_them(tmp_path: Path) -> None:
    one, other = write_log(tmp_path / "one", minutes(3)), write_log(tmp_path / "other", minutes(3, first=1))
    tally = Tally()
    blocks = list(read_blocks([other, one], LAYOUT, 60.0, tally))
    assert [number - MIDNIGHT // 60 for number, _ in blocks] == [0, 1, 1, 2, 2, 3]
    assert [LAYOUT.texts(counts) for _, counts in blocks] == [12] * 6
    assert tally.counted == tally.lines == 72


def test_times_without_a_zone_are_refused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(json.dumps({**GOOD[0], "time": "2026-01-01T00:00:00"}) + "\n", encoding="utf-8")
    tally = Tally()
    assert [len(logged.bins) for logged in read_log(log, LAYOUT, tally)] == [0]
    assert tally.bad == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", "request_id,label\na,billing\na,technical\n"),
        ("labels", '{"request_id":"a","label":"billing"}\n{"request_id":"a","label":"technical"}\n'),
    ],
)
def test_labels_of_one_request_are_in_the_order_of_its_texts(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_labels(tmp_path / name, LAYOUT, Tally()) == {"a": ["billing", "technical"]}
