"""`python -m benchmarks.packing`: what a batch of mixed lengths costs, packed in three ways; one thread, one run, interleaved.

Every round takes the same 256 tickets through each way in turn; the table shows the median over the rounds and its ratio.
"""

from __future__ import annotations

import statistics
import sys
import time
from itertools import islice

from loadtest.corpus import tickets
from models.bundle import Bundle, embedded_bundle
from models.classifier import Classifier, Packing
from models.packing import near_length_groups

TEXTS, BATCH = 256, 32
WAYS: dict[str, Packing] = {
    "one at a time": lambda lengths: [[index] for index in range(len(lengths))],
    "batches of 32, padded to the longest": lambda lengths: [list(range(len(lengths)))],
    "batches of 32, near lengths share a pass": near_length_groups,
}


def main(rounds: int) -> None:
    """Print milliseconds per text for each way."""
    bundle = Bundle.open(embedded_bundle())
    classifiers = {name: Classifier(bundle, packing) for name, packing in WAYS.items()}
    for workload, texts in (
        ("mixed lengths", list(islice(tickets(1), TEXTS))),
        ("alike", [f"ticket {number} my payment failed twice today" for number in range(100, 100 + TEXTS)]),
    ):
        encodings = [next(iter(classifiers.values())).encode(text) for text in texts]
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(rounds):
            for name, classifier in classifiers.items():
                started = time.perf_counter()
                for start in range(0, TEXTS, BATCH):
                    classifier.logits(encodings[start : start + BATCH])
                seconds[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(values) / TEXTS * 1000 for name, values in seconds.items()}
        alone = medians["one at a time"]
        tokens = sum(map(len, encodings)) / TEXTS
        print(f"{workload} ({TEXTS} texts, {tokens:.0f} tokens on average, {rounds} rounds)")  # noqa: T201
        for name, value in medians.items():
            spread = (max(seconds[name]) - min(seconds[name])) / TEXTS * 1000
            print(f"  {name:42} {value:6.2f} ms a text  {alone / value:5.2f} x one at a time  (spread {spread:.2f})")  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
