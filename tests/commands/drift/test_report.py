"""`supportbot drift report` on logs of an invented model."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from drift import Channel, Layout, Monitor, State, Timeline, learn
from tests.commands.drift.logs import (
    LAYOUT,
    MIDNIGHT,
    Minute,
    example,
    lines,
    minutes,
    normal_baseline,
    run,
    without_blanks,
    write_baseline,
    write_labels,
    write_log,
)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_baseline(tmp_path_factory.mktemp("baseline") / "baseline.json")


def first_alarm(changed_from: int) -> tuple[int, int]:
    """The minute of the first alarm, and that at which its verdict says the change began, of a monitor that sees texts come."""
    found: list[tuple[int, int]] = []

    def closed(number: int, _: object) -> None:
        if timeline.monitor.standing()["input"][0] is State.DRIFT and not found:
            found.append((number, timeline.monitor.verdicts()["input"].since or 0))

    timeline = Timeline(Monitor(LAYOUT, normal_baseline()), closed)
    for minute in minutes(300, changed_from):
        timeline.add(minute.number, minute.counts)
    timeline.close(timeline.open + 1 if timeline.open else 0)
    return found[0]


def test_a_log_without_change_is_ok(tmp_path: Path, baseline: Path) -> None:
    result = run("report", write_log(tmp_path / "log", minutes(300)), "--baseline", baseline)
    assert result.exit_code == 0, result.output
    assert (
        "3,600 texts from 2026-01-01 00:00 to 2026-01-01 05:00 UTC in 300 blocks of 60 s; 0 lines were not counted" in result.stdout
    )
    assert "compared with 24,000 texts (two thousand minutes)" in result.stdout
    assert result.stdout.count(" ok ") == 3
    assert "changes" not in result.stdout


def words(text: str) -> str:
    return " ".join(text.split())


def clock(minute: int) -> str:
    hour, rest = divmod(minute - MIDNIGHT // 60, 60)
    return f"2026-01-01 {hour:02}:{rest:02}"


def test_a_change_is_reported_in_the_minute_in_which_a_monitor_of_the_texts_themselves_notices_it(
    tmp_path: Path, baseline: Path
) -> None:
    result = run("report", write_log(tmp_path / "log", minutes(300, 200)), "--baseline", baseline)
    assert result.exit_code == 1, result.output
    alarm, since = first_alarm(200)
    assert f"{clock(alarm + 1)} input ok to drift length at least 20" in words(result.stdout)
    assert f"input drift 100% {clock(MIDNIGHT // 60 + since)} length at least 20 31%, between" in words(result.stdout)


def test_the_baseline_is_that_of_a_server_here_unless_another_is_given(
    tmp_path: Path, baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write_log(tmp_path / "log", minutes(300, 200))
    monkeypatch.setenv("DRIFT_PROFILE", str(baseline))
    assert run("report", log).stdout == run("report", log, "--baseline", baseline).stdout
    monkeypatch.setenv("DRIFT_PROFILE", str(tmp_path / "none"))
    assert (run("report", log).exit_code, run("report", log, "--baseline", baseline).exit_code) == (2, 1)
    monkeypatch.setenv("DRIFT_BLOCK_SECONDS", "often")
    wrong = run("report", log)
    assert (wrong.exit_code, "DRIFT_BLOCK_SECONDS=often" in wrong.stderr) == (2, True)


def test_files_of_one_server_in_any_order_and_of_replicas_are_one_log(tmp_path: Path, baseline: Path) -> None:
    whole = run("report", write_log(tmp_path / "log", minutes(300, 200)), "--baseline", baseline)
    parts: list[list[Minute]] = [[], [], [], []]
    for number, minute in enumerate(minutes(300, 200)):
        for replica in range(2):
            chosen = np.arange(12) % 2 == replica
            values = (getattr(minute, name)[chosen] for name in ("lengths", "labels", "confidence", "true"))
            parts[2 * replica + (number < 150)].append(Minute(minute.number, *values))
    logs = [write_log(tmp_path / f"part{number}", part) for number, part in enumerate(parts)]
    zipped = tmp_path / "part1.gz"
    zipped.write_bytes(gzip.compress(logs[1].read_bytes()))
    again = run("report", logs[0], zipped, *logs[2:], "--baseline", baseline)
    assert (again.exit_code, again.stdout) == (1, whole.stdout)


def test_true_labels_make_the_outcome_known(tmp_path: Path) -> None:
    log, normal = write_log(tmp_path / "log", minutes(300, 200)), list(minutes(200))
    baseline = write_baseline(tmp_path / "baseline.json")
    labels = write_labels(tmp_path / "labels.csv", minutes(300, 200))
    result = run("report", log, "--baseline", baseline, "--labels", labels)
    assert "3,600 texts with a true label" in result.stdout
    assert "outcome watch to drift error wrong" in words(result.stdout)
    right = run("report", write_log(log, normal), "--baseline", baseline, "--labels", write_labels(labels, normal))
    assert right.exit_code == 0, right.output
    assert re.search(r"outcome +ok +[0-9]+%", right.stdout)


def test_without_a_baseline_the_log_teaches_one(tmp_path: Path) -> None: ...


def test_lines_that_tell_nothing_are_counted_and_said(tmp_path: Path, baseline: Path) -> None:
    log = write_log(tmp_path / "log", minutes(10))
    other = Layout(LAYOUT.channels[1:]).encode([[0, 0, -1, -1, -1, -1]])[0]
    with log.open("a", encoding="utf-8") as file:
        file.write('{"time":"2026-01-01T01:00:00.000Z","request_id":"a","label":"billing","confidence":0.9,"text_hash":"00"}\n')
        file.write(f'{{"time":"2026-01-01T01:00:00.000Z","drift":"{other}"}}\n')
        file.write(f'{{"time":"2026-01-01T01:00:00.000Z","drift":"{LAYOUT.mark}AAAAAAAAAAAAA"}}\n')
        file.write('{"time":"2026-01-01T01:00:00.000Z","drift":7}\n{"time":"yesterday","drift":"x"}\nhello\n[]\n{"time":\n')
    result = run("report", log, "--baseline", baseline)
    assert result.exit_code == 0, result.output
    assert f"{log}:122: " not in result.stderr
    assert f"{log}:123: 'drift' is no code" in result.stderr
    assert f"{log}:125: not a line of the prediction log" in result.stderr
    assert "lines and labels that cannot be used: 6; the first are named" in result.stderr
    assert "with the bins of another model or baseline, left out: 1" in result.stderr
    assert "120 texts from" in result.stdout
    assert "1 lines were not counted" in result.stdout


def test_what_is_wrong_is_said_and_the_status_is_2(tmp_path: Path, baseline: Path) -> None:
    log = write_log(tmp_path / "log", minutes(2))
    plain = tmp_path / "plain"
    plain.write_text('{"time":"2026-01-01T01:00:00.000Z","label":"billing"}\n', encoding="utf-8")
    labels = tmp_path / "labels.csv"
    labels.write_text("request_id,label\nr1,refunds\n", encoding="utf-8")
    for arguments, reason in (
        ((tmp_path / "none", "--baseline", baseline), "none: No such file"),
        ((log, "--baseline", tmp_path / "none"), "none: No such file"),
        ((log, "--baseline", log), "not a baseline"),
        ((plain, "--baseline", baseline), "of 1 lines, none has bins of these channels"),
        ((log, "--baseline", baseline, "--html", tmp_path / "no" / "page.html"), "no: no such folder"),
        ((log, "--baseline", baseline, "--html", log), "is read and would be written"),
        ((log, "--baseline", baseline, "--labels", labels), "label 'refunds' is none of billing, technical"),
        ((log, "--baseline", baseline, "--labels", plain), "no 'request_id'"),
    ):
        result = run("report", *arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert reason in result.stderr, (arguments, result.stderr)


class Tags(HTMLParser):
    """Collects elements, and checks that each is closed in its place."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen = Counter[str]()
        self.text = ""

    def handle_starttag(self, tag: str, _: object) -> None:
        self.seen[tag] += 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, _: object) -> None:
        self.seen[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_needs_nothing_from_elsewhere_and_says_what_the_console_says(tmp_path: Path, baseline: Path) -> None:
    log, target = write_log(tmp_path / "log", minutes(300, 200)), tmp_path / "page.html"
    result = run("report", log, "--baseline", baseline, "--html", target)
    assert result.exit_code == 1, result.output
    assert f"the page is in {target}" in words(result.stderr)
    html = target.read_text(encoding="utf-8")
    page = Tags()
    page.feed(html)
    assert page.open == []
    assert page.seen["script"] == page.seen["link"] == page.seen["img"] == 0
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in html
    # Evidence, the tail that alarmed, texts an hour: each for wide and for narrow.
    assert page.seen["svg"] == 6
    _, since = first_alarm(200)
    text = words(page.text)
    assert "Drift at the input" in text
    assert f"Most of all length at least 20, since {clock(MIDNIGHT // 60 + since)} UTC; 31%, between" in text
    assert "Output: ok." in text
    assert "ok to drift" in text
    assert "50%36 (3 min)" in text
    assert "2%360 (30 min)nevernever" in text, "the baseline is too small for two points of labels or errors"


def test_a_page_of_few_texts_and_of_odd_names_is_whole(tmp_path: Path) -> None:
    odd = Layout([Channel("<b>&", "input", edges=(1.0,)), Channel("label", "output", categories=("<i>", "b"))])
    baseline = tmp_path / "baseline.json"
    learned = learn(odd, [(0, np.array([500, 500, 500, 500]))], note="<script>")
    baseline.write_bytes(learned.to_bytes())
    log, target = tmp_path / "log", tmp_path / "page.html"
    line = f'{{"time":"2026-01-01T01:00:00.000Z","drift":"{odd.encode([[0, 0]])[0]}"}}\n'
    log.write_text(line * 30, encoding="utf-8")
    assert run("report", log, "--baseline", baseline, "--html", target).exit_code == 0
    page = Tags()
    page.feed(target.read_text(encoding="utf-8"))
    assert page.open == []
    assert page.seen["script"] == page.seen["b"] == page.seen["i"] == 0
    assert "<b>& at least 1" in page.text or "<b>& below 1" in page.text
    assert "No drift" in page.text


def test_words_are_shown_where_the_log_has_texts_and_no_rare_ones(tmp_path: Path, baseline: Path) -> None:
    log, target, rng = tmp_path / "log", tmp_path / "page.html", np.random.default_rng(0)
    written = []
    for line in lines(minutes(300, 200)):
        record = json.loads(line)
        is_long = LAYOUT.decode([record["drift"]])[0, 0] == 3
        product, name = "zentrix" if is_long and rng.random() < 0.5 else "", "Rumpelstilz" if rng.random() < 0.002 else ""
        record["text"] = f"my invoice is wrong, {'call 5551234' if is_long else 'please'} {product} {name}"
        written.append(json.dumps(record) + "\n")
    log.write_text("".join(written), encoding="utf-8")
    result = run("report", log, "--baseline", baseline, "--html", target)
    assert result.exit_code == 1, result.output
    (more,) = re.findall(r"in more texts since the change: (.*)", words(result.stdout.partition("in fewer texts")[0]))
    (less,) = re.findall(r"in fewer texts since the change: (.*)", words(result.stdout))
    assert {piece.split(" (")[0] for piece in more.split("), ")} == {"call", "zen", "##trix"}
    assert less.startswith("please (6")
    page = Tags()
    page.feed(target.read_text(encoding="utf-8"))
    assert page.open == []
    assert "##trix" in page.text
    for text in ("5551234", "##55", "rum", "invoice"):
        assert text not in result.stdout
        assert text not in page.text


def test_the_label_that_a_change_is_in_is_named(tmp_path: Path) -> None:
    score = tuple(np.linspace(0.1, 0.9, 9).tolist())
    layout = Layout(
        [
            Channel("combined", "input", edges=score),
            *(Channel(f"combined of {label}", "input", edges=score, tested=False) for label in ("billing", "technical")),
            Channel("label", "output", categories=("billing", "technical")),
        ]
    )
    rng = np.random.default_rng(0)

    def texts(changed: bool) -> np.ndarray:
        labels = rng.integers(2, size=12)
        values = np.where((labels == 1) & changed, rng.beta(8, 2, 12), rng.beta(2, 5, 12))
        own = [np.where(labels == number, values, np.nan) for number in (0, 1)]
        return layout.bins({"combined": values, "combined of billing": own[0], "combined of technical": own[1], "label": labels})

    baseline, log, target = tmp_path / "baseline.json", tmp_path / "log", tmp_path / "page.html"
    baseline.write_bytes(learn(layout, ((0, layout.count_bins(texts(changed=False))) for _ in range(1000))).to_bytes())
    written = [
        f'{{"time":"2026-01-01T{minute // 60:02}:{minute % 60:02}:01.000Z","drift":"{code}"}}\n'
        for minute in range(150)
        for code in layout.encode(texts(changed=minute >= 100))
    ]
    log.write_text("".join(written), encoding="utf-8")
    result = run("report", log, "--baseline", baseline, "--html", target)
    assert result.exit_code == 1, result.output
    sentence = re.search(r"Of the unusual texts since the change: 100% technical. Another mix .* would explain .*%", result.stdout)
    assert sentence, result.stdout
    page = Tags()
    page.feed(target.read_text(encoding="utf-8"))
    assert sentence[0] in page.text


def test_the_example_of_the_page_is_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, shown = example("## Report")
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "predictions.jsonl", minutes(300, 200))
    write_baseline(tmp_path / "baseline.json")
    assert without_blanks(run(*command).stdout) == shown
