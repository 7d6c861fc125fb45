"""The report of a load test: one self-contained HTML page, and the same facts as Markdown for a pull request.

A result becomes a document first: a verdict, cautions, facts, and sections of paragraphs, charts and tables, all of them plain
text. Two templates then write it as HTML, escaped by Jinja2, and as Markdown, escaped by `markdown`. Nothing in a result is trusted
to be harmless: descriptions, names of groups and of errors may come from elsewhere.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from loadtest import charts
from loadtest.answers import MALFORMED, WRONG_CONFIDENCE, WRONG_LABEL
from loadtest.charts import Chart
from loadtest.knee import Knee, find_knee
from loadtest.measure import HERE
from loadtest.results import Gate, Percentiles, Result, ResultError
from loadtest.summary import noticed
from loadtest.words import milliseconds, per_second, percent, short

GENERATORS = {"locust": "Locust", "light": "the light generator"}

PROBLEMS = {
    "429": "refused: the queue was full",
    "504": "not answered before its deadline",
    "left": "the client left before the answer, as it was told to",
    "disconnected": "the connection ended before the answer",
    "timeout": "the generator gave up waiting",
    "wrong_label": "an answer, but a wrong one",
    "wrong_confidence": "the right answer, with another confidence",
    "malformed": "an answer that is none",
}

COUNTED_FROM = (
    "A request that had to wait for a slow server before it could even be sent is not forgiven: its latency counts from when it was"
    " to start. Where latency and service time part, the system had fallen behind."
)

# A generator that uses most of the one core that Python gives it measures itself.
BUSY_GENERATOR = 0.8
BUSY_MACHINE = 0.95
# Below this share of the offered rate a run says how the system fails, not how fast it is.
KEPT_UP = 0.98
# Errors that come with status 200.
WRONG_ANSWERS = (WRONG_LABEL, WRONG_CONFIDENCE, MALFORMED)
# The server's percentiles are between the bounds of a bucket, which are up to twice as far; the network takes its time.
CLOCKS_FACTOR, CLOCKS_MS = 2.0, 3.0


@dataclass(frozen=True)
class Table:
    """A caption, a row of headings, and rows whose first cell names them."""

    caption: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    # Whether the last column holds words, not numbers.
    words: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    paragraphs: list[str]
    charts: list[Chart]
    tables: list[Table]


@dataclass(frozen=True)
class Verdict:
    """`kind` is "passed", "failed" or "open"."""

    kind: str
    word: str
    text: str


def write_report(result: Result, folder: Path) -> list[Path]:
    """Write `<scenario>.html` and `<scenario>.md` into `folder`; returns their paths. Raises `OSError`, `ResultError`."""
    if Path(result.scenario).name != result.scenario:
        raise ResultError(f"scenario: {result.scenario!r} cannot be a file's name")
    page, summary = folder / f"{result.scenario}.html", folder / f"{result.scenario}.md"
    sections = build_sections(result)
    page.write_text(render("report.html", result, sections), encoding="utf-8")
    summary.write_text(render("report.md", result, sections), encoding="utf-8")
    return [page, summary]


def render(template: str, result: Result, sections: list[Section]) -> str:
    """The document by one of the templates, "report.html" or "report.md"."""
    environment = Environment(
        loader=PackageLoader("loadtest"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["markdown"] = markdown
    return environment.get_template(template).render(
        result=result,
        description=_sentence(result.description),
        verdict=judge(result),
        tiles=tiles(result),
        cautions=cautions(result),
        facts=facts(result),
        sections=sections,
    )


def markdown(text: str) -> str:
    """Text that Markdown, and HTML within it, shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|~&#$@])", r"\\\1", " ".join(text.split()))


# The head


def judge(result: Result) -> Verdict:
    """The gates in words."""
    if not result.gates:
        return Verdict("open", "Not judged", "No gates were set for this run.")
    broken = [gate for gate in result.gates if not gate.passed]
    if not broken:
        return Verdict("passed", "Passed", "The gate holds." if len(result.gates) == 1 else f"All {len(result.gates)} gates hold.")
    reasons = "; ".join(f"{gate.name} is {_measured(gate)}, the bound is {short(gate.bound)}" for gate in broken)
    hold = "does not hold" if len(broken) == 1 else "do not hold"
    return Verdict("failed", "Failed", f"{len(broken)} of {_counted(len(result.gates), 'gate')} {hold}: {reasons}.")


def tiles(result: Result) -> list[tuple[str, str, str]]:
    """What a reader looks for first: name, figure, unit."""
    failed = sum(result.errors.values())
    latency = result.latency
    found = [
        ("p50", milliseconds(latency.p50 if latency else None), "ms"),
        ("p99", milliseconds(latency.p99 if latency else None), "ms"),
        ("max", milliseconds(latency.max if latency else None), "ms"),
        ("answered", per_second(result.achieved_rate).removesuffix("/s"), f"of {per_second(result.offered_rate)}"),
        ("failed", f"{failed:,}", f"of {result.requests:,}"),
    ]
    if result.server_cpu is not None:
        found.append(("server CPU", f"{result.server_cpu:.2f}", f"of {_counted(result.machine.cores, 'core')}"))
    return found


def cautions(result: Result) -> list[str]:
    """What makes the figures mean less than they seem to."""
    return [
        caution
        for caution in (_capacity(result), *_generator(result), _few(result), _counted_elsewhere(result), *_clocks(result))
        if caution
    ]


def _capacity(result: Result) -> str:
    if result.achieved_rate >= KEPT_UP * result.offered_rate:
        return ""
    said = f"Only {percent(result.achieved_rate, result.offered_rate)} of the offered rate was answered within the run."
    return said if result.latency is None else f"{said} The percentiles are of the good answers, not of all that was asked."


def _generator(result: Result) -> Iterable[str]:
    cores = result.machine.cores
    if result.client_cpu > BUSY_GENERATOR:
        yield (
            f"The generator used {result.client_cpu:.2f} of the one core that it can use:"
            " it may have been the limit, and its own slowness is in the latencies."
        )
    if result.server_cpu is not None and result.server_cpu + result.client_cpu > BUSY_MACHINE * cores:
        yield f"Server and generator together filled the machine's {_counted(cores, 'core')}: each slowed the other."
    late, latency = result.lateness, result.latency
    if late is not None and latency is not None and late.p99 > max(1.0, 0.2 * latency.p99):
        yield f"1 % of the requests were sent over {milliseconds(late.p99)} ms late; latency counts that, service time does not."


def _few(result: Result) -> str:
    count = result.latency.count if result.latency else 0
    if not 0 < count < 10_000:
        return ""
    name, share = ("p99", 0.01) if count < 1000 else ("p99.9", 0.001)
    slower = max(1, int(count * share))
    return f"Of {_counted(count, 'answer')} no more than {slower} were slower than {name}: another run will differ."


def _counted_elsewhere(result: Result) -> str:
    if result.batches is None:
        return ""
    got, sent = _answers(result), result.batches.requests
    if abs(sent - got) <= max(2, 0.01 * got):
        return ""
    return (
        f"The generator got {got:,} answers with status 200 and the server sent {sent:,}:"
        " somebody else used it too, or not all arrived."
    )


def _answers(result: Result) -> int:
    """Those with status 200, which is what the server counts."""
    return (result.latency.count if result.latency else 0) + sum(result.errors.get(name, 0) for name in WRONG_ANSWERS)


def _clocks(result: Result) -> Iterable[str]:
    """Where the client's clock and the server's say different things. The server's is only as fine as its buckets."""
    if result.batches is None or result.service_time is None:
        return
    pairs = {
        "p50": (result.service_time.p50, result.batches.server_p50),
        "p99": (result.service_time.p99, result.batches.server_p99),
    }
    for name, (client, server) in pairs.items():
        if server is None:
            continue
        clocks = (
            f"{name} of the service time is {milliseconds(client)} ms by the generator's clock,"
            f" {milliseconds(server)} by the server's"
        )
        if client > CLOCKS_FACTOR * server + CLOCKS_MS:
            yield f"{clocks}: the rest was spent before or after the server had the request, in the network or in the generator."
        elif server > CLOCKS_FACTOR * client + CLOCKS_MS:
            yield f"{clocks}, which cannot be of the same requests: somebody else used it too."


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def facts(result: Result) -> list[tuple[str, str]]:
    """Under which circumstances the figures were measured."""
    machine = result.machine
    settings = ", ".join(f"{name}={value}" for name, value in sorted(result.server_settings.items()))
    generator = f"{GENERATORS[result.generator]}, with {result.client_cpu:.2f} cores of its own"
    texts = _counted(result.requests, "request") + (
        "" if result.texts == result.requests else f", {_counted(result.texts, 'text')}"
    )
    found = [
        ("Started", _moment(result.started)),
        ("Length", f"{result.seconds:,.4g} s, {texts}, seed {result.seed}"),
        ("Rate", f"{per_second(result.offered_rate)} offered, {per_second(result.achieved_rate)} answered"),
        ("Generator", generator),
        ("Machine", f"{machine.processor}, {_counted(machine.cores, 'core')}"),
        ("Software", f"Python {machine.python}, {machine.platform}"),
        ("Server", result.target),
        ("Model", result.model),
        ("Settings", settings or ("none set: the defaults" if result.target == HERE else "not known, it was not started here")),
    ]
    if (said := noticed(result)) is not None:
        found.append(("The change", said))
    if result.pass_ms is not None:
        found.append(("One pass", f"{milliseconds(result.pass_ms)} ms on an idle server"))
    return found


def _moment(iso: str) -> str:
    try:
        moment = dt.datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{moment:%Y-%m-%d %H:%M:%S} {moment.tzname() or ''}".rstrip()


def _sentence(text: str) -> str:
    return text if not text else text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


# The sections


def build_sections(result: Result) -> list[Section]:
    """In the order of reading; those that a run has nothing to say on are left out."""
    made = (_gates, _latency, _over_time, _by_rate, _stages, _batches, _resources, _groups, _errors)
    return [section for make in made if (section := make(result)) is not None]


def _drawn(*found: Chart | None) -> list[Chart]:
    return [chart for chart in found if chart is not None]


def _gates(result: Result) -> Section | None:
    if not result.gates:
        return None
    rows = [(gate.name, _measured(gate), short(gate.bound), "holds" if gate.passed else "fails") for gate in result.gates]
    return Section("Gates", [], [], [Table("What was asked of this run.", ("gate", "measured", "bound", ""), rows, words=True)])


def _measured(gate: Gate) -> str:
    return "not measured" if gate.measured is None else short(gate.measured)


def _latency(result: Result) -> Section:
    title = "Latency"
    if result.latency is None:
        return Section(title, ["No request was answered, so there is no latency to show."], [], [])
    columns = {"latency": result.latency, "service time": result.service_time, "sent late by": result.lateness}
    known = {name: found for name, found in columns.items() if found is not None}
    rows = [
        (label, *(milliseconds(getattr(found, field)) for found in known.values()))
        for label, field in {**_POINTS, "mean": "mean"}.items()
    ]
    caption = (
        f"Milliseconds, of {_counted(result.latency.count, 'answer')}. Latency counts from the intended start of a request,"
        " service time from the moment it was sent."
    )
    paragraphs = [COUNTED_FROM]
    if len(result.stretches) > 1:
        paragraphs.append(_spread(result.stretches))
    chart = charts.percentile_curve(result)
    if chart is None:
        paragraphs.append("The run kept no histogram, so there is no percentile curve.")
    return Section(title, paragraphs, _drawn(chart), [Table(caption, ("", *known), rows)])


_POINTS = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99.9": "p999", "max": "max"}


def _spread(stretches: Sequence[Percentiles]) -> str:
    def between(values: list[float]) -> str:
        return f"{milliseconds(min(values))} to {milliseconds(max(values))} ms"

    p50, p99 = [stretch.p50 for stretch in stretches], [stretch.p99 for stretch in stretches]
    return f"In {len(stretches)} equal stretches of the run, p50 was {between(p50)} and p99 {between(p99)}."


def _over_time(result: Result) -> Section:
    latency, rate, queue = (draw(result) for draw in (charts.latency_over_time, charts.rate_over_time, charts.queue_over_time))
    paragraphs = []
    if rate is None:
        paragraphs.append("The run kept no figures of its seconds.")
    elif queue is None:
        paragraphs.append("The depth of the server's queue is not known: its metrics could not be read during the run.")
    return Section("Over time", paragraphs, _drawn(latency, rate, queue), [])


def _by_rate(result: Result) -> Section | None:
    if len(result.phases) < 2:
        return None
    rows = [
        (
            phase.name,
            per_second(phase.offered_rate).removesuffix("/s"),
            per_second(phase.achieved_rate).removesuffix("/s"),
            milliseconds(phase.latency.p50 if phase.latency else None),
            milliseconds(phase.latency.p99 if phase.latency else None),
            f"{phase.failed:,}",
        )
        for phase in result.phases
    ]
    table = Table(
        "The phases of the run; rates a second, latency in milliseconds.",
        ("phase", "offered", "answered", "p50", "p99", "failed"),
        rows,
    )
    points = [(phase.offered_rate, latency.p99) for phase, latency in charts.measured_phases(result)]
    knee = find_knee(points)
    chart = charts.latency_by_rate(result, knee)
    if chart is None:
        return Section("Phases", [], [], [table])
    return Section("Latency against rate", [_say_knee(knee)], [chart], [table])


def _say_knee(knee: Knee) -> str:
    if knee.rate is None:
        return f"No knee: {knee.reason}."
    return (
        f"The knee is at {per_second(knee.rate)}, with a p99 of {milliseconds(knee.latency)} ms: up to there more load costs"
        " little, and past it latency runs away. It is the point of the p99 curve that lies furthest under its diagonal, on linear"
        " axes (Kneedle, Satopää et al. 2011)."
    )


def _stages(result: Result) -> Section:
    title = "Where time goes"
    if not result.stages:
        return Section(title, ["The answers carried no Server-Timing, so it is not known where their time went."], [], [])
    names = charts.stage_names(result)
    rows = [
        (name, *(milliseconds(getattr(result.stages[name], field)) for field in ("mean", "p50", "p99", "max"))) for name in names
    ]
    paragraph = (
        "By the server's own Server-Timing of each answer. The rest is what the latency has beyond that:"
        " HTTP, the network, and waiting to be sent."
    )
    return Section(
        title, [paragraph], _drawn(charts.stages(result)), [Table("Milliseconds.", ("stage", "mean", "p50", "p99", "max"), rows)]
    )


def _shares(counts: Sequence[tuple[str, int]]) -> list[tuple[str, str, str]]:
    total = sum(count for _, count in counts)
    return [(name, f"{count:,}", percent(count, total)) for name, count in counts]


def _batches(result: Result) -> Section:
    title, batches = "Batches", result.batches
    if batches is None:
        return Section(title, ["The server's metrics could not be read, so nothing is known of its batches."], [], [])
    made = [
        ("passes", f"{batches.passes:,}"),
        ("texts in a pass", f"{batches.texts:.1f}"),
        ("tokens in a pass", f"{batches.tokens:,.0f}"),
        ("padding it would have had", f"{batches.padding_ratio:.2f}"),
    ]
    latency = result.latency
    compared = [
        ("answers with status 200", f"{_answers(result):,}", f"{batches.requests:,}"),
        ("p50, ms", milliseconds(latency.p50 if latency else None), milliseconds(batches.server_p50)),
        ("p99, ms", milliseconds(latency.p99 if latency else None), milliseconds(batches.server_p99)),
    ]
    reasons = _shares(sorted(batches.flushes.items(), key=lambda pair: (-pair[1], pair[0])))
    sizes = _shares(list(batches.sizes.items()))
    return Section(
        title,
        ["By the server's own counters, before and after the run."],
        _drawn(charts.sizes(result), charts.flushes(result)),
        [
            Table(
                "Means of the passes; padding is cells over real tokens, were each batch padded to its longest text.",
                ("", ""),
                made,
            ),
            *([Table("Passes by the number of their texts.", ("texts", "passes", "share"), sizes)] if sizes else []),
            *([Table("Why passes began.", ("reason", "passes", "share"), reasons)] if reasons else []),
            Table(
                "A cross-check. The server's percentiles are estimates within its histogram's buckets, and know neither the network"
                " nor a request that was sent late: they should lie a little below the generator's.",
                ("", "generator", "server"),
                compared,
            ),
        ],
    )


def _resources(result: Result) -> Section:
    begin, end, peak = result.server_rss_begin, result.server_rss_end, result.server_rss_peak
    rows = [("generator CPU, cores", f"{result.client_cpu:.2f}")]
    if result.server_cpu is not None:
        rows.append(("server CPU, cores", f"{result.server_cpu:.2f}"))
        if result.achieved_rate > 0:
            rows.append(("server CPU an answer, ms", milliseconds(1000 * result.server_cpu / result.achieved_rate)))
    memory = {"memory at the start, MB": begin, "memory at the end, MB": end, "memory at most, MB": peak}
    rows += [(name, f"{value:,.0f}") for name, value in memory.items() if value is not None]
    if begin and end is not None:
        rows.append(("memory growth", f"{100 * (end / begin - 1):+.1f} %"))
    unknown = result.server_cpu is None or peak is None
    paragraphs = ["The server's process is not to be seen from here, so its CPU and memory are unknown."] if unknown else []
    drawn = _drawn(charts.cpu_over_time(result), charts.memory_over_time(result))
    return Section("CPU and memory", paragraphs, drawn, [Table("Over the whole run; memory is the server's.", ("", ""), rows)])


def _groups(result: Result) -> Section | None:
    if not result.groups:
        return None
    rows = [
        (name, f"{group.count:,}", *(milliseconds(getattr(group, field)) for field in ("p50", "p99", "max")))
        for name, group in result.groups.items()
    ]
    head = ("kind", "answers", "p50", "p99", "max")
    caption = "Latency in milliseconds, by the kind of request; by status too, where there were several."
    return Section("Kinds", [], [], [Table(caption, head, rows)])


def _errors(result: Result) -> Section:
    title = "Failures"
    if not result.errors and not result.expected:
        return Section(title, ["No request failed."], [], [])
    tables = [
        Table(
            caption,
            ("outcome", "requests", "share", "what it is"),
            [
                (name, f"{count:,}", percent(count, result.requests), PROBLEMS.get(name, ""))
                for name, count in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
            ],
            words=True,
        )
        for caption, found in (("What failed.", result.errors), ("Expected: they belong to this scenario.", result.expected))
        if found
    ]
    return Section(title, [] if result.errors else ["No request failed but as the scenario expects."], [], tables)
