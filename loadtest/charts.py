"""The charts of a report: matplotlib's SVG, made fit to stand in an HTML page.

Each chart is drawn twice, wide and narrow, since one drawing scaled down to a phone has text that nobody can read; the page's style
shows the one that fits. matplotlib knows no style sheet, so it draws in the stand-in colours of `COLOURS`, which become the page's
variables afterwards: one drawing serves light and dark. Ids get the chart's name in front, since all charts share one page. Nothing
depends on the date, on chance or on matplotlib's global state, so equal results give equal bytes.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import matplotlib as mpl
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from loadtest.knee import MIN_RATES, Knee
from loadtest.results import STAGES, Percentiles, Phase, Result, ResultError, Second

# Stand-ins, to be found again in what matplotlib wrote, and the variables of templates/report.css that replace them.
INK, MUTED, GRID = "#000001", "#000002", "#000003"
BLUE, ORANGE, RED, TEAL, GREY = "#000004", "#000005", "#000006", "#000007", "#000008"
_NAMES = ("ink", "muted", "grid", "blue", "orange", "red", "teal", "grey")
COLOURS = dict(zip((INK, MUTED, GRID, BLUE, ORANGE, RED, TEAL, GREY), _NAMES, strict=True))

# At most so many points along time: a longer run is drawn in steps of several seconds.
MAX_POINTS = 240

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 1,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 12.5,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.5,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0,
}


@dataclass(frozen=True)
class Chart:
    """A picture in two sizes, as elements of an HTML page, with a line that says what it shows."""

    name: str
    title: str
    note: str
    wide: str
    narrow: str


@dataclass(frozen=True)
class _Size:
    """Of a drawing, in CSS pixels at its natural size, with the margins around its axes."""

    name: str
    width: int
    height: int
    left: int = 50
    right: int = 20
    top: int = 30
    bottom: int = 34


def _render(name: str, title: str, note: str, draw: Callable[[Axes, bool], None], height: int = 270, left: int = 50) -> Chart:
    """`draw` is called with the axes and whether they are narrow."""
    wide, narrow = _Size("wide", 800, height, left), _Size("narrow", 360, min(height, 240), left)
    return Chart(name, title, note, *(_svg(name, title, note, draw, size) for size in (wide, narrow)))


def _svg(name: str, title: str, note: str, draw: Callable[[Axes, bool], None], size: _Size) -> str:
    # matplotlib's own defaults first: a user's matplotlibrc has no say here.
    with style.context(["default", _STYLE]), mpl.rc_context({"svg.hashsalt": f"{name}-{size.name}"}):
        figure = Figure(figsize=(size.width / 72, size.height / 72), dpi=72)
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        figure.subplots_adjust(
            left=size.left / size.width,
            right=1 - size.right / size.width,
            bottom=size.bottom / size.height,
            top=1 - size.top / size.height,
        )
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes, size.name == "narrow")
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_page(file.getvalue(), f"{name}-{size.name}", title, note)


def _for_page(svg: str, name: str, title: str, note: str) -> str:
    """What matplotlib wrote, as an element of an HTML page that says what it is to those who cannot see it."""
    body = re.sub(r"<style.*?</style>", "", svg[svg.index(">", svg.index("<svg")) + 1 :], flags=re.DOTALL)
    # A > within an attribute or a text is written as an entity, so that these are the tags and nothing else.
    body = re.sub(r"<[^>]+>", lambda tag: _own(tag[0], name), body)
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box is not None
    # With title and desc inside, and ids of their own: one page holds many charts.
    return (
        f'<svg {box[0]} role="img" aria-labelledby="{name}-title" aria-describedby="{name}-desc">'
        f'<title id="{name}-title">{html.escape(title)}</title><desc id="{name}-desc">{html.escape(note)}</desc>{body.strip()}'
    )


def _own(tag: str, name: str) -> str:
    """A tag with the page's colours and font, and the ids of this chart; those of groups nobody refers to."""
    if tag.startswith("<g"):
        tag = re.sub(r' id="[^"]*"', "", tag)
    tag = re.sub(r"#00000[1-8]\b", lambda found: f"var(--{COLOURS[found[0]]})", tag)
    tag = re.sub(r"font-family: [^;]*; ", "", tag)
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = re.sub(r'xlink:href="#', f'href="#{name}-', tag)
    return tag.replace("url(#", f"url(#{name}-")


def _say_unit(axes: Axes, unit: str) -> None:
    """What the vertical axis counts, over it, where it reads without turning one's head."""
    axes.annotate(unit, (0, 1), (0, 12), ("figure fraction", "axes fraction"), textcoords="offset points", color=MUTED, va="bottom")


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.03), ncols=columns)


def plain(value: float) -> str:
    """A tick's number as one would write it: 0.5, 20, 1,000."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _scale_latency(axes: Axes, values: Iterable[float]) -> None:
    """A logarithmic axis from a little under the least to a little over the most, of half a decade at least."""
    seen = [value for value in values if value > 0] or [1.0]
    low, high = min(seen) / 1.25, max(seen) * 1.25
    if high < low * 4:
        middle = math.sqrt(low * high)
        low, high = middle / 2, middle * 2
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    subs: tuple[float, ...] = (1,) if high > low * 300 else (1, 2, 5) if high > low * 12 else (1, 1.5, 2, 3, 5, 7)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def _scale_from_zero(axes: Axes, highest: float) -> None:
    axes.set_ylim(0, highest * 1.08 or 1)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


# Along time


@dataclass(frozen=True)
class _Step:
    """Several seconds as one: the median of the p50, the worst p99 and maximum, means of what is counted, the longest queue."""

    at: float
    p50: float
    p99: float
    max: float
    offered: float
    answered: float
    failed: float
    server_cpu: float
    client_cpu: float
    rss: float
    queued: float


def _steps(series: Sequence[Second]) -> tuple[list[_Step], int]:
    """A long run in steps, and how many seconds a step has."""
    width = max(1, math.ceil(len(series) / MAX_POINTS))
    return [_step(series[begin : begin + width]) for begin in range(0, len(series), width)], width


def _step(seconds: Sequence[Second]) -> _Step:
    def over(combine: Callable[[list[float]], float], name: str) -> float:
        values = [value for second in seconds if (value := getattr(second, name)) is not None]
        return combine(values) if values else math.nan

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    return _Step(
        at=seconds[0].at,
        p50=over(median, "p50"),
        p99=over(max, "p99"),
        max=over(max, "max"),
        offered=over(mean, "offered"),
        answered=over(mean, "answered"),
        failed=over(mean, "failed"),
        server_cpu=over(mean, "server_cpu"),
        client_cpu=over(mean, "client_cpu"),
        rss=over(max, "server_rss"),
        queued=over(max, "queued"),
    )


def _known(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _scale_time(axes: Axes, result: Result) -> None:
    """From the first to the last second, in minutes where there are many; dotted where one phase ends and the next begins."""
    length = max([result.seconds, *(second.at + 1 for second in result.series)])
    axes.set_xlim(0, length)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 3, 5, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
    if length > 300:
        axes.xaxis.set_major_locator(FixedLocator(range(0, math.ceil(length) + 1, _minutes(length) * 60)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 60:g} min"))
    for phase in result.phases[1:]:
        axes.axvline(phase.begin, color=MUTED, linewidth=1, linestyle=(0, (1, 3)))


def _minutes(length: float) -> int:
    """Between ticks."""
    return next(minutes for minutes in (1, 2, 5, 10, 15, 30, 60, 10**6) if length / 60 / minutes <= 6)


def _time_note(text: str, width: int, combined: str) -> str:
    if width > 1:
        text += f" A point stands for {width} seconds: {combined}."
    return text


def latency_over_time(result: Result) -> Chart | None:
    """p50, p99 and maximum of each second, with a mark over those in which requests failed."""
    steps, width = _steps(result.series)
    if not _known(step.p50 for step in steps):
        return None

    def draw(axes: Axes, _narrow: bool) -> None:
        at = [step.at + width / 2 for step in steps]
        mark = "o" if len(steps) == 1 else ""
        axes.plot(at, [step.max for step in steps], color=GREY, linewidth=1, label="max", marker=mark)
        axes.plot(at, [step.p99 for step in steps], color=ORANGE, label="p99", marker=mark)
        axes.plot(at, [step.p50 for step in steps], color=BLUE, label="p50", marker=mark)
        _scale_latency(axes, [value for step in steps for value in _known((step.p50, step.p99, step.max))])
        if failing := [step.at + width / 2 for step in steps if step.failed > 0]:
            axes.plot(
                failing,
                [0.04] * len(failing),
                color=RED,
                marker="^",
                linestyle="none",
                label="failed",
                transform=axes.get_xaxis_transform(),
            )
        _scale_time(axes, result)
        _say_unit(axes, "ms")
        _legend(axes, 4)

    note = "Latency of the requests that were to start in each second, counted from the intended start."
    if any(step.failed > 0 for step in steps):
        note += " A red mark: requests failed."
    if len(result.phases) > 1:
        note += " Dotted: a phase ends, the next begins."
    note = _time_note(note, width, "the median of p50, the worst p99 and maximum")
    return _render("latency-over-time", "Latency over time", note, draw)


def rate_over_time(result: Result) -> Chart | None:
    """Requests offered, answered and failed in each second."""
    if not result.series:
        return None
    steps, width = _steps(result.series)

    def draw(axes: Axes, _narrow: bool) -> None:
        edges = [*(step.at for step in steps), steps[-1].at + width]
        axes.stairs([step.offered for step in steps], edges, color=GREY, linewidth=1.5, baseline=None, label="offered")
        axes.stairs([step.answered for step in steps], edges, color=BLUE, linewidth=1.5, baseline=None, label="answered")
        if any(step.failed > 0 for step in steps):
            axes.stairs([step.failed for step in steps], edges, color=RED, fill=True, label="failed")
        _scale_from_zero(axes, max(max(step.offered, step.answered, step.failed) for step in steps))
        _scale_time(axes, result)
        _say_unit(axes, "requests/s")
        _legend(axes, 3)

    note = "Requests that were to start in each second, those of them that failed, and the good answers that came in it."
    note = _time_note(note, width, "their mean")
    return _render("rate-over-time", "Rate over time", note, draw, 200)


def queue_over_time(result: Result) -> Chart | None:
    """Texts that wait in the server."""
    steps, width = _steps(result.series)
    if not _known(step.queued for step in steps):
        return None

    def draw(axes: Axes, _narrow: bool) -> None:
        edges = [*(step.at for step in steps), steps[-1].at + width]
        axes.stairs([step.queued for step in steps], edges, color=TEAL, fill=True, alpha=0.25)
        axes.stairs([step.queued for step in steps], edges, color=TEAL, linewidth=1.5, baseline=None)
        _scale_from_zero(axes, max(1, *_known(step.queued for step in steps)))
        _scale_time(axes, result)
        _say_unit(axes, "texts")

    note = _time_note("Texts waiting in the server's queue, looked at once a second.", width, "the longest queue")
    return _render("queue-over-time", "Queue depth over time", note, draw, 180)


def cpu_over_time(result: Result) -> Chart | None:
    """Cores used by the server and by the generator."""
    steps, width = _steps(result.series)
    if not _known(value for step in steps for value in (step.server_cpu, step.client_cpu)):
        return None

    def draw(axes: Axes, _narrow: bool) -> None:
        at = [step.at + width / 2 for step in steps]
        server, client = [step.server_cpu for step in steps], [step.client_cpu for step in steps]
        if _known(server):
            axes.plot(at, server, color=BLUE, label="server")
        axes.plot(at, client, color=ORANGE, label="generator")
        highest, cores = max(_known((*server, *client))), result.machine.cores
        # With dozens of cores the line would press the curves to the floor.
        if cores <= 4 * max(highest, 1):
            axes.axhline(cores, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=f"all {cores}" if cores > 1 else "all 1")
            highest = max(highest, cores)
        _scale_from_zero(axes, highest)
        _scale_time(axes, result)
        _say_unit(axes, "cores")
        _legend(axes, 3)

    note = "Cores in use by the server's process and by the load generator's own."
    if not _known(step.server_cpu for step in steps):
        note = "Cores in use by the load generator; the server's are not to be seen from here."
    return _render("cpu-over-time", "CPU over time", _time_note(note, width, "their mean"), draw, 200)


def memory_over_time(result: Result) -> Chart | None:
    """The server's resident memory."""
    steps, width = _steps(result.series)
    known = _known(step.rss for step in steps)
    if not known:
        return None

    def draw(axes: Axes, _narrow: bool) -> None:
        axes.plot([step.at + width / 2 for step in steps], [step.rss for step in steps], color=TEAL)
        middle = (min(known) + max(known)) / 2
        reach = max((max(known) - min(known)) * 0.6, middle * 0.05)
        axes.set_ylim(middle - reach, middle + reach)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
        _scale_time(axes, result)
        _say_unit(axes, "MB")

    note = "Resident memory of the server's process; the axis does not start at zero."
    return _render("memory-over-time", "Memory over time", _time_note(note, width, "the most"), draw, 180)


# Over the whole run


def percentile_points(result: Result) -> list[tuple[float, float]]:
    """(1 / (1 - percentile), milliseconds), as HdrHistogram plots them; the last is the maximum. Raises `ResultError`."""
    if not result.histogram:
        return []
    try:
        histogram = HdrHistogram.decode(result.histogram)
    except Exception as error:  # of base64, zlib, ctypes or the package's own: whatever it is, this is no histogram
        raise ResultError(f"histogram: not an HDR histogram: {error}") from error
    count = histogram.get_total_count()
    points = []
    for step in histogram.get_percentile_iterator(10):
        beyond = 1 - step.percentile_level_iterated_to / 100
        points.append((min(1 / beyond, count) if beyond > 0 else count, step.value_iterated_to / 1000))
    return points


def percentile_curve(result: Result) -> Chart | None:
    """Latency against percentile, each step to the right another nine."""
    points = percentile_points(result)
    if not points:
        return None
    sent = result.service_time

    def draw(axes: Axes, narrow: bool) -> None:
        axes.plot([rarity for rarity, _ in points], [latency for _, latency in points], color=BLUE, label="latency")
        seen = [latency for _, latency in points]
        if sent is not None:
            marks = [(2, sent.p50), (10, sent.p90), (20, sent.p95), (100, sent.p99), (1000, sent.p999)]
            marks = [(rarity, value) for rarity, value in marks if rarity <= points[-1][0]]
            axes.plot(
                [rarity for rarity, _ in marks],
                [value for _, value in marks],
                color=ORANGE,
                marker="o",
                markersize=5,
                linestyle="none",
                label="service time",
            )
            seen += [value for _, value in marks]
        _scale_latency(axes, seen)
        last = points[-1][0]
        # The first two lie too close for a narrow chart.
        ticks = [] if narrow else [(1, "0")]
        ticks += [(2, "50"), (10, "90"), (100, "99"), (1000, "99.9"), (10_000, "99.99"), (100_000, "99.999")]
        ticks = [(rarity, text) for rarity, text in ticks if rarity <= last * 1.2]
        axes.set_xscale("log")
        axes.set_xlim(1, max(last, 2) * 1.1)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks([rarity for rarity, _ in ticks], [f"{text} %" for _, text in ticks])
        axes.grid(visible=True, axis="x")
        _say_unit(axes, "ms")
        _legend(axes, 2)

    note = (
        "How long the given share of requests took at most, to the right on a scale where each step is ten times rarer."
        " Latency counts from the intended start, service time from the moment of sending."
    )
    return _render("percentile-curve", "Latency by percentile", note, draw)


def measured_phases(result: Result) -> list[tuple[Phase, Percentiles]]:
    """The phases with answers, by rate."""
    answered = [(phase, phase.latency) for phase in result.phases if phase.latency is not None]
    return sorted(answered, key=lambda pair: pair[0].offered_rate)


def latency_by_rate(result: Result, knee: Knee) -> Chart | None:
    """p50 and p99 of each phase over its offered rate; None where there are too few phases to look for a knee."""
    phases = measured_phases(result)
    if len(phases) < MIN_RATES:
        return None

    def draw(axes: Axes, _narrow: bool) -> None:
        rates = [phase.offered_rate for phase, _ in phases]
        for colour, label, values in (
            (ORANGE, "p99", [latency.p99 for _, latency in phases]),
            (BLUE, "p50", [latency.p50 for _, latency in phases]),
        ):
            axes.plot(rates, values, color=colour, label=label, marker="o", markersize=4.5)
        _scale_latency(axes, [value for _, latency in phases for value in (latency.p50, latency.p99)])
        axes.set_xlim(0, max(rates) * 1.05)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{plain(value)}/s"))
        if knee.rate is not None:
            axes.axvline(knee.rate, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
            right = knee.rate > max(rates) / 2
            axes.annotate(
                f"knee: {plain(float(f'{knee.rate:.3g}'))}/s",
                (knee.rate, 1),
                (-6 if right else 6, -2),
                axes.get_xaxis_transform(),
                textcoords="offset points",
                ha="right" if right else "left",
                va="top",
                color=INK,
            )
        _say_unit(axes, "ms")
        _legend(axes, 2)

    note = "Each point is one phase of the run at its offered rate. The latency axis is logarithmic."
    return _render("latency-by-rate", "Latency against rate", note, draw)


def stage_names(result: Result) -> list[str]:
    """In the order that a request meets them; unknown ones last."""
    return sorted(result.stages, key=lambda name: STAGES.index(name) if name in STAGES else len(STAGES))


def stages(result: Result) -> Chart | None:
    """Where a request's time goes: the mean of each stage as a bar, its p99 as a mark."""
    names = stage_names(result)
    if not names:
        return None
    found = [result.stages[name] for name in names]

    def draw(axes: Axes, _narrow: bool) -> None:
        rows = range(len(names))
        axes.barh(rows, [stage.mean for stage in found], 0.5, color=BLUE, label="mean")
        axes.hlines(rows, [stage.mean for stage in found], [stage.p99 for stage in found], color=ORANGE, linewidth=1.5)
        axes.plot([stage.p99 for stage in found], rows, color=ORANGE, marker="o", markersize=5, linestyle="none", label="p99")
        axes.set_xlim(0, max(*(max(stage.p99, stage.mean) for stage in found), 1e-9) * 1.06)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{plain(value)} ms"))
        _name_rows(axes, names)
        _legend(axes, 2)

    note = "The means add up to the mean latency; the p99s do not, since a request is rarely slow in every stage."
    return _render("stages", "Where time goes", note, draw, 66 + 40 * len(names), 78)


def sizes(result: Result) -> Chart | None:
    """How many texts passes had."""
    found = list(result.batches.sizes.items()) if result.batches is not None else []
    return _shares("sizes", "Texts in a pass", "The share of passes by the number of their texts.", found)


def flushes(result: Result) -> Chart | None:
    """Why passes began when they did."""
    found = sorted(result.batches.flushes.items(), key=lambda pair: (-pair[1], pair[0])) if result.batches is not None else []
    return _shares("flushes", "Why passes began", "The share of passes by the reason for which the batch was closed.", found)


def _shares(name: str, title: str, note: str, counts: Sequence[tuple[str, int]]) -> Chart | None:
    """A bar for each kind; None without any."""
    total = sum(count for _, count in counts)
    if not total:
        return None

    def draw(axes: Axes, _narrow: bool) -> None:
        rows = range(len(counts))
        shares = [100 * count / total for _, count in counts]
        axes.barh(rows, shares, 0.5, color=TEAL)
        axes.set_xlim(0, 112)
        for row, share in zip(rows, shares, strict=True):
            axes.annotate(f"{share:.1f} %", (share, row), (6, 0), textcoords="offset points", va="center", color=INK)
        axes.set_xticks([0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        _name_rows(axes, [kind for kind, _ in counts])

    return _render(name, title, note, draw, 60 + 36 * len(counts), 78)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names of horizontal bars, the first on top."""
    axes.set_yticks(range(len(names)), [name if len(name) <= 11 else f"{name[:10]}…" for name in names], color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
