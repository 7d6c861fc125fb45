"""The batching queue in virtual time: what look-ahead and its bound are worth, on pass times that were measured.

    python -m benchmarks.simulation measure      # pass times of this machine, into benchmarks/pass_times.json
    python -m benchmarks.simulation              # tables; --plot and --plot-look-ahead draw

Texts of tickets' lengths arrive at random (Poisson), and the real `batching.queue` decides what leaves; only the model is replaced,
by a formula for the seconds of a pass. So every policy meets the same texts at the same times, and no noise of a machine. There are
two engines: the padding-free one that is served, and the usual one, which pads a batch to its longest text.

Loads are shares of what an engine can do in the order of arrival (FIFO). Where the queue is full texts are refused; latencies are
those of the others. The first half of a run, in which the queue fills, does not count.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from itertools import chain, islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from batching.policy import BatchPolicy, Priority
from batching.simulation import Item, Pass, PassSeconds, simulate
from benchmarks.console import say
from loadtest.corpus import tickets
from models.bundle import Bundle, embedded_bundle
from models.engines import PackedEngine, PaddedEngine
from models.making.pass_times import Terms, draw_batch, fit, formula, padded_terms, padding_free_terms, planned
from models.making.tune import ticket_lengths
from models.tokenizer import Tokenizer
from models.types import Encoding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASS_TIMES: Final = Path(__file__).with_name("pass_times.json")
PADDING_FREE: Final = "padding-free"
PADDED: Final = "padded to the longest"

# A run is as long as so many texts take at the capacity, and done with each seed; the figures are those of all these runs.
TEXTS: Final = 14_000
SEEDS: Final = (1, 2, 3)
LOADS: Final = (0.3, 0.5, 0.8, 0.95, 1.2)
# More than any policy can do, so that all of them are saturated.
OVERLOAD: Final = 4.0
INTERACTIVE_LOAD: Final = 0.2
# Passes that are timed in a row on one engine.
TURN: Final = 12

FIFO: Final = BatchPolicy(max_items=32, max_cost=512, workers=2, look_ahead=0, max_passed_over=0)
STRICT_WINDOW: Final = replace(FIFO, idle_flush=False, window=0.040)
# Look-ahead, and how often a text may be passed over.
DEFAULT: Final = (BatchPolicy().look_ahead, BatchPolicy().max_passed_over)
OTHERS: Final = ((32, 1), (32, 4), (48, 6), (64, 1), (64, 2), (64, 8), (128, 4), (128, 8), (256, 16))
LOOK_AHEADS: Final = (32, 64, 128, 256)
BOUNDS: Final = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of some texts. Times in seconds; cells are those of attention, `padded` and `computed` over real ones."""

    texts_per_second: float
    refused: float
    p50: float
    p99: float
    padded: float
    computed: float
    batch: float
    passed_over: int


def arrivals(number: int, rate: float, seed: int, priority: Priority = Priority.INTERACTIVE) -> list[Item]:
    """So many texts of tickets' lengths, `rate` a second on average, at random; the same for the same seed."""
    moments = np.random.default_rng(seed).exponential(1 / rate, number).cumsum().tolist()
    return [Item(length, moment, priority) for length, moment in zip(ticket_lengths(number, seed=seed), moments, strict=True)]


def summarize(runs: Sequence[tuple[Sequence[Item], Sequence[Pass]]]) -> Summary:
    """Of the second half of the texts of each run, by age, and of the passes that began between the first and the last of them."""
    counted: list[Item] = []
    lengths: list[list[int]] = []
    seconds, answered = 0.0, 0
    for texts, done in runs:
        late = texts[len(texts) // 2 :]
        start, end = late[0].arrives_at, late[-1].arrives_at
        counted += late
        lengths += [one.costs for one in done if start <= one.started <= end]
        seconds += end - start
        answered += sum(start < text.answered_at <= end for text in texts)
    latencies = [text.latency for text in counted if text.latency < math.inf]
    cells = sum(length * length for length in chain.from_iterable(lengths))
    p50, p99 = np.percentile(latencies, [50, 99]).tolist()
    return Summary(
        texts_per_second=answered / seconds,
        refused=1 - len(latencies) / len(counted),
        p50=p50,
        p99=p99,
        padded=sum(len(batch) * max(batch) ** 2 for batch in lengths) / cells,
        computed=sum(planned(tuple(sorted(batch)))[1] for batch in lengths) / cells,
        batch=sum(map(len, lengths)) / len(lengths),
        passed_over=max(text.passed_over for text in counted),
    )


def capacity(seconds: PassSeconds, policy: BatchPolicy = FIFO) -> float:
    """Texts a second when all are there from the start."""
    texts = [Item(length, 0.0) for length in ticket_lengths(TEXTS // 4)]
    done = simulate(texts, replace(policy, max_queued=len(texts)), seconds)
    return len(texts) / max(one.ended for one in done)


# --- pass times


TERMS: Final[Mapping[str, Terms]] = {PADDING_FREE: padding_free_terms, PADDED: padded_terms}


def measured(path: Path = PASS_TIMES) -> dict[str, PassSeconds]:
    """The seconds of a pass over texts of some lengths, for each engine, as they were measured."""
    curves = json.loads(path.read_text(encoding="utf-8"))["curves"]
    return {engine: formula(TERMS[engine], curve["coefficients"]) for engine, curve in curves.items()}


def measure(padded_bundle: Path, seconds: float) -> dict[str, Any]:
    """Time both engines, one thread, on random batches for some `seconds`, and fit the formulas."""
    served, padded = Bundle.open(embedded_bundle()), Bundle.open(padded_bundle)
    engines = {
        PADDING_FREE: PackedEngine(served.model, served.manifest).logits,
        PADDED: PaddedEngine(padded.model, padded.manifest).run,
    }
    tokenizer = Tokenizer(served.tokenizer, served.manifest.max_length)
    words = [token for text in islice(tickets(1), 500) for token in tokenizer.encode(text).ids[1:-1]]
    ends = tokenizer.encode("help").ids
    generator, typical = random.Random(1), ticket_lengths(TEXTS)

    def text(length: int) -> Encoding:
        return Encoding((ends[0], *generator.choices(words, k=length - 2), ends[-1]), truncated=False)

    def batch() -> list[int]:
        return [typical[index] for index in draw_batch(generator, typical, FIFO.max_items, FIFO.max_cost)]

    seen: dict[str, list[tuple[list[int], float]]] = {engine: [] for engine in engines}
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        batches = [batch() for _ in range(TURN)]
        for engine, run in engines.items():
            # The first is not counted: it finds the other engine's weights in the cache.
            for index, lengths in enumerate([batches[0], *batches]):
                texts = [text(length) for length in lengths]
                before = time.perf_counter()
                run(texts)
                if index:
                    seen[engine].append((lengths, time.perf_counter() - before))
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{_processor()}, one thread",
        "onnxruntime": metadata.version("onnxruntime"),
        "curves": {engine: _fit(engine, pairs) for engine, pairs in seen.items()},
    }


def _fit(engine: str, pairs: Sequence[tuple[Sequence[int], float]]) -> dict[str, Any]:
    coefficients, errors = fit([TERMS[engine](lengths) for lengths, _ in pairs], [seconds for _, seconds in pairs])
    return {
        "coefficients": [float(f"{value:.4g}") for value in coefficients],
        "median_relative_error": round(float(np.median(errors)), 4),
        "batches": len(pairs),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


# --- what is compared


def look_ahead(seen: int, bound: int) -> BatchPolicy:
    """With so many texts considered for a batch, and a text passed over so many times at most."""
    return replace(FIFO, look_ahead=seen, max_passed_over=bound)


def policies() -> dict[str, BatchPolicy]:
    """All policies by name."""
    pairs = {f"look-ahead {seen}, passed over {bound}": look_ahead(seen, bound) for seen, bound in (DEFAULT, *OTHERS)}
    return {"FIFO": FIFO, "strict window of 40 ms": STRICT_WINDOW, **pairs}


def run(policy: BatchPolicy, seconds: PassSeconds, load: float, full: float) -> Summary:
    """One policy at a share of `full` texts a second."""
    runs = []
    for seed in SEEDS:
        texts = arrivals(int(TEXTS * max(1, load)), load * full, seed)
        runs.append((texts, simulate(texts, policy, seconds)))
    return summarize(runs)


def run_two_classes(policy: BatchPolicy, seconds: PassSeconds, full: float, bulk_class: Priority) -> tuple[Summary, Summary]:
    """(interactive, bulk): interactive texts at a fifth of the capacity, beside more bulk texts than can be done."""
    interactive, bulk = [], []
    for seed in SEEDS:
        urgent = arrivals(int(TEXTS * INTERACTIVE_LOAD), INTERACTIVE_LOAD * full, seed)
        others = arrivals(int(TEXTS * OVERLOAD), OVERLOAD * full, seed + 1000, bulk_class)
        done = simulate(sorted([*urgent, *others], key=lambda text: text.arrives_at), policy, seconds)
        interactive.append((urgent, done))
        bulk.append((others, done))
    return summarize(interactive), summarize(bulk)


def report(curves: Mapping[str, PassSeconds]) -> dict[str, dict[str, dict[float, Summary]]]:
    """Print all tables; returns what was found by engine, policy and load."""
    found: dict[str, dict[str, dict[float, Summary]]] = {}
    for engine, seconds in curves.items():
        full = capacity(seconds)
        say(f"\n## {engine}: FIFO does {full:.0f} texts/s\n")
        found[engine] = {
            name: {load: run(policy, seconds, load, full) for load in (*LOADS, OVERLOAD)} for name, policy in policies().items()
        }
        for load in (*LOADS, OVERLOAD):
            say(f"\n### {load:.0%}\n")
            say("| policy | texts/s | refused | p50 ms | p99 ms | padded cells | computed cells | texts a batch | passed over |")
            say("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
            for name, by_load in found[engine].items():
                one = by_load[load]
                say(
                    f"| {name} | {one.texts_per_second:.0f} | {one.refused:.1%} | {one.p50 * 1e3:.1f} | {one.p99 * 1e3:.1f}"
                    f" | {one.padded:.2f} | {one.computed:.2f} | {one.batch:.1f} | {one.passed_over} |"
                )
        say(f"\n### interactive texts at {INTERACTIVE_LOAD:.0%} beside bulk that saturates\n")
        say("| classes | interactive: texts/s | refused | p50 ms | p99 ms | bulk: texts/s |")
        say("| --- | --- | --- | --- | --- | --- |")
        ways = {"one": Priority.INTERACTIVE, "two, 4 to 1": Priority.BULK}
        orders = {"FIFO": FIFO, "look-ahead": look_ahead(*DEFAULT)}
        for (classes, bulk_class), (order, policy) in product(ways.items(), orders.items()):
            one, bulk = run_two_classes(policy, seconds, full, bulk_class)
            say(
                f"| {classes}, {order} | {one.texts_per_second:.0f} | {one.refused:.1%} | {one.p50 * 1e3:.1f}"
                f" | {one.p99 * 1e3:.1f} | {bulk.texts_per_second:.0f} |"
            )
    return found


def draw(found: Mapping[str, Mapping[str, Mapping[float, Summary]]], path: Path) -> None:
    """Padding, throughput and p99 over load, as PNG. Needs matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    # The first three; where lines lie on each other, the wider one below is still seen.
    styles = dict(zip(policies(), (("#5b8def", 5), ("#d9822b", 2.5), ("#1e9e61", 1.5)), strict=False))
    for part, (engine, by_policy) in zip(figure.subfigures(len(found), 1, squeeze=False)[:, 0], found.items(), strict=True):
        part.suptitle(engine, fontweight="bold")
        axes = part.subplots(1, 3)
        for name, (colour, width) in styles.items():
            ones = [by_policy[name][load] for load in LOADS]
            values = [one.padded for one in ones], [one.texts_per_second for one in ones], [one.p99 * 1e3 for one in ones]
            for axis, value in zip(axes, values, strict=True):
                axis.plot([load * 100 for load in LOADS], value, "o-", color=colour, linewidth=width, markersize=4, label=name)
        axes[0].set(title="cells if padded, over real ones", ylim=(0, 5.5))
        axes[1].set(title="texts/s", ylim=(0, None))
        axes[2].set(title="p99 of accepted texts, ms", yscale="log")
        axes[2].yaxis.set_major_formatter(ScalarFormatter())
        axes[2].yaxis.set_minor_formatter("")
        for axis in axes:
            axis.set_xlabel("load, % of what FIFO can do")
            axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def draw_look_ahead(curves: Mapping[str, PassSeconds], path: Path) -> None:
    """Padding, throughput and p99 under overload against FIFO's, over the bound, a line for each look-ahead. Needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    for part, (engine, seconds) in zip(figure.subfigures(len(curves), 1, squeeze=False)[:, 0], curves.items(), strict=True):
        part.suptitle(f"{engine}, overloaded, in % of FIFO's", fontweight="bold")
        axes = part.subplots(1, 3)
        full = capacity(seconds)
        fifo = run(FIFO, seconds, OVERLOAD, full)
        for seen in LOOK_AHEADS:
            ones = [run(look_ahead(seen, bound), seconds, OVERLOAD, full) for bound in BOUNDS]
            values = (
                [(one.padded - 1) / (fifo.padded - 1) * 100 for one in ones],
                [one.texts_per_second / fifo.texts_per_second * 100 for one in ones],
                [one.p99 / fifo.p99 * 100 for one in ones],
            )
            for axis, value in zip(axes, values, strict=True):
                axis.plot(BOUNDS, value, "o-", markersize=4, label=f"look-ahead {seen}")
        axes[0].set(title="padding (ratio - 1)", ylim=(0, 105))
        axes[0].axhline(50, color="grey", linestyle="--", linewidth=1)
        axes[1].set(title="texts/s")
        axes[2].set(title="p99 of accepted texts")
        for axis in axes:
            axis.axhline(100, color="grey", linewidth=1)
            axis.set_xscale("log", base=2)
            axis.set_xticks(BOUNDS, [str(bound) for bound in BOUNDS])
            axis.set_xlabel("passed over at most")
            axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """With one legend for all axes, as PNG with 4 bits a colour, which takes half the room and looks the same."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    lines = figure.axes[0].get_lines()
    handles = [line for line in lines if not str(line.get_label()).startswith("_")]
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=len(handles))
    figure.set_dpi(110)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    imsave(path, np.asarray(canvas.buffer_rgba())[..., :3] // 17 * 17, pil_kwargs={"optimize": True})


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=["compare", "measure"], default="compare")
    parser.add_argument(
        "--padded", type=Path, default=Path("dist/supportbot-padded"), help="an INT8 bundle built with --engine padded"
    )
    parser.add_argument("--seconds", type=float, default=50, help="how long to measure")
    parser.add_argument("--plot", type=Path, help="a picture over load")
    parser.add_argument("--plot-look-ahead", type=Path, help="a picture over look-ahead and its bound")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        found = measure(arguments.padded, arguments.seconds)
        PASS_TIMES.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        say(f"{PASS_TIMES.name}: {found}")
        return
    curves = measured()
    found = report(curves)
    if arguments.plot:
        draw(found, arguments.plot)
    if arguments.plot_look_ahead:
        draw_look_ahead(curves, arguments.plot_look_ahead)


if __name__ == "__main__":
    main()
