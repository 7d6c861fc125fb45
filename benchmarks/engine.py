"""`python -m benchmarks.engine`: workers, start-up and memory of the embedded bundle. Engines are compared by `supportbot ladder`.

- workers: texts/s of two threads over the shared session, against one, in turn; passes are what the server makes of batches of 32.
- start: from starting a Python process to the first answer, bundle opened, checked and warm; median over processes.
- memory: resident after 20,000 tickets of mixed lengths by two threads, and how much of it came with the second half.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from benchmarks.console import say
from loadtest.corpus import tickets
from models.bundle import embedded_bundle
from models.classifier import Classifier
from models.types import Encoding

BATCH, WORKERS = 32, 2
MEMORY_TEXTS = 20_000
START = """
from models.bundle import embedded_bundle
from models.classifier import Classifier
classifier = Classifier.open(embedded_bundle())
classifier.self_check()
classifier.warm_up()
print(classifier.predict([classifier.encode("payment failed")])[0].label)
"""


def main(rounds: int, texts: int) -> None:
    """Print all figures."""
    classifier = Classifier.open(embedded_bundle())
    encodings = [classifier.encode(text) for text in islice(tickets(1), texts)]
    rates: dict[int, list[float]] = {1: [], WORKERS: []}
    for _ in range(rounds):
        for workers, seen in rates.items():
            seen.append(texts / seconds(classifier, encodings, workers))
    ratios = [two / one for one, two in zip(rates[1], rates[WORKERS], strict=True)]
    one, two = (statistics.median(seen) for seen in rates.values())
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    say(f"one worker {one:.0f} texts/s, two {two:.0f}: ratio {ratio}")

    starts = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", START], check=True, capture_output=True)  # noqa: S603 - our own code
        starts.append(time.perf_counter() - started)
    say(f"process start to first answer: {statistics.median(starts):.2f} s ({min(starts):.2f} to {max(starts):.2f})")

    command = [sys.executable, "-m", "benchmarks.engine", "--memory"]
    say(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())  # noqa: S603


def seconds(classifier: Classifier, encodings: Sequence[Encoding], workers: int) -> float:
    """The time that so many threads take for all encodings, in batches as they come."""
    batches = [encodings[start : start + BATCH] for start in range(0, len(encodings), BATCH)]
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(classifier.predict, batches))
    return time.perf_counter() - started


def memory() -> None:
    """Print this process's resident memory half way and at the end."""
    classifier = Classifier.open(embedded_bundle())
    classifier.self_check()
    source = tickets(2)
    sizes = []
    for _ in range(2):
        half = MEMORY_TEXTS // 2
        for _ in range(half // 1000):
            seconds(classifier, [classifier.encode(text) for text in islice(source, 1000)], WORKERS)
        sizes.append(resident_megabytes())
    say(f"resident after {MEMORY_TEXTS} texts: {sizes[1]:.0f} MB, {sizes[1] / sizes[0] - 1:+.1%} over the last half")


def resident_megabytes() -> float:
    """This process's resident set (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmRSS"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--memory", action="store_true", help="only the memory part, in this process")
    arguments = parser.parse_args()
    if arguments.memory:
        memory()
    else:
        main(arguments.rounds, arguments.texts)
