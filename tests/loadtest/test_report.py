"""The report: harmless whatever a result holds, complete in itself, and never silent about what is missing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import pytest

from loadtest import charts
from loadtest.knee import find_knee
from loadtest.report import build_sections, cautions, judge, markdown, render, write_report
from loadtest.results import Gate, Result, ResultError
from loadtest.words import milliseconds, per_second, percent
from tests.loadtest.virtual_run import virtual_run

RAMP = [(60.0 * step, 3.0) for step in range(1, 15)]
NO_CHARTS: dict[str, object] = {"series": [], "histogram": "", "stages": {}, "batches": None}
HOSTILE = "<script>alert('1')</script> | `x` & \"q\" $\\frac$ $x_1$"


@pytest.fixture(scope="module")
def steady() -> Result:
    return virtual_run(rates=[(200.0, 10.0)])


@pytest.fixture(scope="module")
def ramp() -> Result:
    return virtual_run("ramp", RAMP)


@pytest.fixture(scope="module")
def ramp_page(ramp: Result) -> str:
    return both(ramp)[0]


def both(result: Result) -> tuple[str, str]:
    """As HTML and as Markdown."""
    sections = build_sections(result)
    return render("report.html", result, sections), render("report.md", result, sections)


class Page(HTMLParser):
    """The tags of a page with their attributes, its ids, and what is open at the end."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}>"

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_both_files_are_written_beside_each_other(steady: Result, tmp_path: Path) -> None:
    paths = write_report(steady, tmp_path)
    assert paths == [tmp_path / "steady.html", tmp_path / "steady.md"]
    assert paths[0].read_text(encoding="utf-8").startswith("<!doctype html>\n<html lang=")
    assert paths[1].read_text(encoding="utf-8").startswith("# Load test: steady\n")


@pytest.mark.parametrize("name", ["../steady", "a/b"])
def test_a_scenario_cannot_lead_out_of_the_folder(steady: Result, tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(ResultError, match="cannot be a file's name"):
        write_report(steady.model_copy(update={"scenario": name}), inside)
    assert [path.name for path in tmp_path.rglob("*")] == ["inside"]


def test_equal_results_give_equal_charts_whatever_matplotlib_was_told(
    ramp: Result, ramp_page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "lines.linewidth": 9,
        "font.size": 30,
        "svg.fonttype": "path",
        "xtick.major.size": 20,
        "lines.linestyle": "--",
    }.items():
        monkeypatch.setitem(mpl.rcParams, name, value)
    for draw in (charts.latency_over_time, charts.percentile_curve):
        chart = draw(ramp)
        assert chart is not None
        assert chart.wide in ramp_page
        assert chart.narrow in ramp_page


def test_the_page_is_well_formed_and_every_id_is_there_once(ramp_page: str) -> None:
    page = Page(ramp_page)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    meant = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', ramp_page)
    assert meant
    labels = {attributes.get("aria-labelledby") for _, attributes in page.tags} - {None}
    assert {first or second for first, second in meant} | labels <= set(ids)


def test_the_page_needs_nothing_from_elsewhere(ramp_page: str) -> None:
    page = Page(ramp_page)
    assert {"script", "link", "img", "iframe", "image"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert all((value or "").startswith("#") for name, value in attributes.items() if name.endswith("href"))
    assert re.search(r"https?:|url\((?!#)|@import|@font-face", ramp_page) is None
    assert "default-src 'none'" in ramp_page


def test_every_chart_has_a_title_and_a_description_and_says_that_it_is_one_image(ramp_page: str) -> None:
    page = Page(ramp_page)
    drawn = page.all("svg")
    assert len(drawn) == 2 * len(page.all("figure")) == 2 * 10
    titles = {attributes["id"] for attributes in page.all("title") if "id" in attributes}
    descriptions = {attributes["id"] for attributes in page.all("desc")}
    for attributes in drawn:
        assert attributes["role"] == "img"
        assert attributes["aria-labelledby"] in titles
        assert attributes["aria-describedby"] in descriptions


def test_charts_have_text_that_is_text_and_no_colour_but_the_pages_own(ramp_page: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", ramp_page, flags=re.DOTALL))
    assert ">p99</text>" in drawn
    assert re.search(r"#[0-9a-fA-F]{3,6}\b", re.sub(r'(url\(|href=")#', "", drawn)) is None
    defined = set(re.findall(r"--([a-z]+):", ramp_page))
    assert set(re.findall(r"var\(--([a-z]+)\)", drawn)) <= defined
    assert "font-family" not in drawn


def test_headings_descend_without_a_gap_and_every_table_has_row_headings(ramp_page: str) -> None:
    page = Page(ramp_page)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    scopes = {attributes.get("scope") for attributes in page.all("th")}
    assert scopes == {"row", "col"}


def test_what_a_result_says_is_shown_and_never_run(steady: Result) -> None:
    assert steady.batches is not None
    assert steady.latency is not None
    result = steady.model_copy(
        update={
            "description": HOSTILE,
            "model": HOSTILE,
            "target": HOSTILE,
            "server_settings": {HOSTILE: HOSTILE},
            "errors": {HOSTILE: 3},
            "expected": {HOSTILE: 3},
            "groups": {HOSTILE: steady.latency},
            "stages": {HOSTILE: steady.latency, "$\\x$": steady.latency},  # matplotlib would take it for a formula
            "phases": [steady.phases[0].model_copy(update={"name": HOSTILE})] * 2,
            "batches": steady.batches.model_copy(update={"flushes": {HOSTILE: 3}, "sizes": {HOSTILE: 3}}),
            "gates": [Gate(name=HOSTILE, bound=1, measured=2, passed=False)],
        }
    )
    page, summary = both(result)
    assert Page(page).all("script") == []
    assert page.count("&lt;script&gt;") > 10
    assert "<script" not in summary.replace("\\<script", "")
    for row in [line for line in summary.splitlines() if line.startswith("|") and "script" in line]:
        cells = re.split(r"(?<!\\)\|", row)
        assert len(cells) in {5, 6, 7, 8}, row


def test_markdown_shows_text_as_it_is() -> None:
    assert markdown("a|b\n<i> [x](y) `c` *d*_e_") == r"a\|b \<i\> \[x\](y) \`c\` \*d\*\_e\_"


def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_head(steady: Result) -> None:
    assert steady.latency is not None
    changes = {"errors": {"504": 1}, "expected": {"429": 2}, "groups": {"bulk": steady.latency}, "phases": steady.phases * 2}
    _, summary = both(steady.model_copy(update=changes))
    tables = [block.splitlines() for block in summary.split("\n\n") if block.startswith("|")]
    assert len(tables) == 13
    for table in tables:
        assert re.fullmatch(r"(\| (---|---:) )+\|", table[1])
        assert {row.count("|") for row in table} == {table[1].count("|")}


# What is missing


def test_a_server_elsewhere_is_reported_without_what_cannot_be_seen(steady: Result) -> None:
    series = [second.model_copy(update={"server_cpu": None, "server_rss": None, "queued": None}) for second in steady.series]
    result = steady.model_copy(
        update={
            **dict.fromkeys(
                ("server_cpu", "server_rss_begin", "server_rss_end", "server_rss_peak", "batches", "pass_ms", "lateness")
            ),
            "stages": {},
            "gates": [],
            "series": series,
            "target": "http://elsewhere:8000",
            "server_settings": {},
        }
    )
    for report in both(result):
        said = report.replace("&#39;", "'")
        for sentence in (
            "not known, it was not started here",
            "The server's process is not to be seen from here, so its CPU and memory are unknown.",
            "The server's metrics could not be read, so nothing is known of its batches.",
            "The depth of the server's queue is not known",
            "The answers carried no Server-Timing",
            "No gates were set for this run.",
        ):
            assert sentence in said
        assert "None" not in report
    assert [chart.name for section in build_sections(result) for chart in section.charts] == [
        "percentile-curve",
        "latency-over-time",
        "rate-over-time",
        "cpu-over-time",
    ]


def test_a_run_without_an_answer_is_reported_all_the_same(steady: Result) -> None:
    silent = [
        second.model_copy(update={"answered": 0, "failed": second.offered, "p50": None, "p99": None, "max": None})
        for second in steady.series
    ]
    result = steady.model_copy(
        update={
            "latency": None,
            "service_time": None,
            "histogram": "",
            "stretches": [],
            "stages": {},
            "achieved_rate": 0.0,
            "errors": {"disconnected": steady.requests},
            "series": silent,
            "phases": [steady.phases[0].model_copy(update={"latency": None, "achieved_rate": 0.0, "failed": steady.requests})],
        }
    )
    report, summary = both(result)
    assert "No request was answered, so there is no latency to show." in report
    assert "the connection ended before the answer" in report
    assert "Only 0 % of the offered rate was answered within the run." in report
    assert "None" not in report
    assert "No request was answered" in summary


def test_a_run_without_anything_is_reported_all_the_same(steady: Result) -> None:
    empty = steady.model_copy(update={"series": [], "histogram": "", "service_time": None, "stretches": [], "phases": []})
    report, _ = both(empty)
    assert "The run kept no figures of its seconds." in report
    assert "The run kept no histogram" in report


def test_a_second_without_an_answer_is_a_gap_and_not_a_zero(steady: Result) -> None:
    series = [
        second.model_copy(update={"p50": None, "p99": None, "max": None}) if second.at == 4 else second for second in steady.series
    ]
    chart = charts.latency_over_time(steady.model_copy(update={"series": series}))
    whole = charts.latency_over_time(steady)
    assert chart is not None
    assert whole is not None
    assert "nan" not in chart.wide.lower()

    def strokes(svg: str) -> int:
        lines = re.findall(r'<path d="([^"]+)" clip-path[^>]+var\(--(?:blue|orange)\)', svg)
        return sum(line.count("M") for line in lines)

    assert (strokes(whole.wide), strokes(chart.wide)) == (2, 4)


def test_a_broken_histogram_is_an_error_that_says_so(steady: Result) -> None:
    for broken in ("no base64!", "AAAA", steady.histogram[:40]):
        with pytest.raises(ResultError, match="not an HDR histogram"):
            charts.percentile_points(steady.model_copy(update={"histogram": broken}))


# What is said


def test_the_verdict_names_each_gate_that_does_not_hold(steady: Result) -> None:
    holds, breaks = Gate(name="a", bound=1, measured=0.5, passed=True), Gate(name="p99", bound=12, measured=15.25, passed=False)

    def judged(*gates: Gate) -> tuple[str, str]:
        verdict = judge(steady.model_copy(update={"gates": gates}))
        return verdict.kind, verdict.text

    assert judged(holds) == ("passed", "The gate holds.")
    assert judged(holds, holds) == ("passed", "All 2 gates hold.")
    assert judged(breaks) == ("failed", "1 of 1 gate does not hold: p99 is 15.25, the bound is 12.")
    assert judged(holds, breaks) == ("failed", "1 of 2 gates does not hold: p99 is 15.25, the bound is 12.")
    assert judged() == ("open", "No gates were set for this run.")
    table = build_sections(steady.model_copy(update={"gates": [holds, breaks], **NO_CHARTS}))[0].tables[0]
    assert table.rows == [("a", "0.5", "1", "holds"), ("p99", "15.25", "12", "fails")]
    unknown = Gate(name="p99", bound=12, measured=None, passed=False)
    assert judged(unknown) == ("failed", "1 of 1 gate does not hold: p99 is not measured, the bound is 12.")


def test_what_makes_the_figures_doubtful_is_said(steady: Result) -> None:
    assert steady.latency is not None
    assert steady.batches is not None
    latency, batches = steady.latency, steady.batches

    def counted(answers: int) -> dict[str, object]:
        return {
            "latency": latency.model_copy(update={"count": answers}),
            "batches": batches.model_copy(update={"requests": answers}),
        }

    many = steady.model_copy(update=counted(20_000))
    assert cautions(many) == []
    # Refusals are no answers, wrong answers are.
    errors = {"429": 5000, "wrong_label": 1000}
    with_errors = {"requests": 26_000, "errors": errors, "batches": batches.model_copy(update={"requests": 21_000})}
    assert cautions(many.model_copy(update=with_errors)) == []
    for changes, said in (
        ({"achieved_rate": 100.0}, "Only 50 % of the offered rate was answered"),
        ({"client_cpu": 0.93}, "The generator used 0.93 of the one core"),
        ({"server_cpu": 1.8}, "filled the machine's 2 cores"),
        ({"lateness": steady.latency}, "late; latency counts that"),
        (counted(5000), "no more than 5 were slower than p99.9"),
        (counted(500), "no more than 5 were slower than p99:"),
        ({"batches": steady.batches.model_copy(update={"requests": 10})}, "and the server sent 10"),
        (
            {"batches": batches.model_copy(update={"requests": 20_000, "server_p99": 5000.0})},
            "5,000 by the server's, which cannot be of the same requests",
        ),
        (
            {"batches": batches.model_copy(update={"requests": 20_000, "server_p50": 0.5})},
            "0.50 by the server's: the rest was spent before or after",
        ),
    ):
        found = cautions(many.model_copy(update=changes))
        assert len(found) == 1
        assert said in found[0]


def test_the_knee_is_said_and_drawn(ramp: Result, ramp_page: str) -> None:
    knee = find_knee([(phase.offered_rate, phase.latency.p99) for phase in ramp.phases if phase.latency])
    assert knee.rate is not None
    assert 500 < knee.rate < 800  # the virtual server saturates at 720 a second
    assert f"The knee is at {knee.rate:.0f}/s" in ramp_page
    assert f">knee: {knee.rate:.0f}/s</text>" in ramp_page


def test_a_ramp_that_did_not_reach_the_limit_says_that_there_is_no_knee() -> None:
    result = virtual_run("ramp", [(20.0 * step, 3.0) for step in range(1, 7)])
    page, _ = both(result.model_copy(update={"series": []}))
    assert "No knee: latency nowhere reached twice its lowest" in page
    assert ">knee" not in page


def test_phases_of_two_rates_are_listed_without_a_curve() -> None:
    result = virtual_run("burst", [(60, 3), (600, 2), (60, 3)]).model_copy(update=NO_CHARTS)
    sections = {section.title: section for section in build_sections(result)}
    assert "Latency against rate" not in sections
    assert len(sections["Phases"].tables[0].rows) == 3


def test_the_percentile_curve_ends_at_the_maximum_and_passes_through_the_percentiles(steady: Result) -> None:
    points = charts.percentile_points(steady)
    assert steady.latency is not None
    assert points == sorted(points)
    assert points[-1] == pytest.approx((steady.latency.count, steady.latency.max), rel=0.002)
    before = max(point for point in points if point[0] <= 100)
    after = min(point for point in points if point[0] > 100)
    assert before[1] * 0.99 <= steady.latency.p99 <= after[1] * 1.01


def test_a_long_run_is_drawn_in_steps_that_keep_the_worst_second(steady: Result) -> None:
    series = [steady.series[0].model_copy(update={"at": at, "p99": 20.0, "max": 25.0}) for at in range(1800)]
    series[777] = series[777].model_copy(update={"p99": 900.0, "max": 950.0, "failed": 1})
    steps, width = charts._steps(series)
    assert width == 8
    assert len(steps) == 225 <= charts.MAX_POINTS
    worst = max(steps, key=lambda step: step.max)
    assert (worst.at, worst.p99, worst.max) == (776, 900.0, 950.0)
    assert sum(step.failed * width for step in steps) == pytest.approx(1 + 1800 * steady.series[0].failed)
    chart = charts.latency_over_time(steady.model_copy(update={"series": series, "seconds": 1800.0}))
    assert chart is not None
    assert "A point stands for 8 seconds" in chart.note
    assert ">30 min</text>" in chart.wide
    assert "requests failed" in chart.note


def test_figures_have_three_digits_and_shares_do_not_round_to_all_or_none() -> None:
    assert [milliseconds(value) for value in (None, 0.424, 18.64, 204.4, 1250.0)] == ["\N{EN DASH}", "0.42", "18.6", "204", "1,250"]
    assert [per_second(value) for value in (5.04, 99.0, 1234.5)] == ["5.0/s", "99.0/s", "1,234/s"]
    assert [percent(part, 100_000) for part in (0, 1, 1234, 99_999, 100_000)] == ["0 %", "< 0.01 %", "1.23 %", "99.999 %", "100 %"]
    assert percent(0, 0) == "\N{EN DASH}"
