"""Prediction logs of an invented model: texts have a length, a label and a confidence, and a few of them are wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import orjson
import typer
from typer.testing import CliRunner, Result

from commands.drift.cli import app
from drift import Baseline, Channel, Counts, Layout, learn, outcome_values
from drift.outcome import outcome_channels

LABELS = ("billing", "technical")
LAYOUT = Layout(
    [
        Channel("length", "input", edges=(5.0, 10.0, 20.0)),
        Channel("label", "output", categories=LABELS),
        Channel("confidence", "output", edges=(0.5, 0.9)),
        *outcome_channels(LABELS),
    ]
)
MIDNIGHT = 1_767_225_600  # 2026-01-01, in UTC
DAY = 1440


@dataclass(frozen=True)
class Minute:
    """The texts answered in one minute: values of the channels, and the true labels."""

    number: int
    lengths: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    true: np.ndarray

    @property
    def bins(self) -> np.ndarray:
        return LAYOUT.bins({"length": self.lengths, "label": self.labels, "confidence": self.confidence})

    @property
    def counts(self) -> Counts:
        return LAYOUT.count_bins(self.bins)

    @property
    def outcomes(self) -> Counts:
        return LAYOUT.count(outcome_values(LABELS, self.labels, self.true, self.confidence))


def minutes(count: int, changed_from: int = 10**9, *, texts: int = 12, first: int = 0, seed: int = 0) -> Iterator[Minute]:
    """Normal texts; from a minute on, a third is longer, and a third more of the answers are wrong."""
    rng = np.random.default_rng(seed)
    for minute in range(count):
        changed = (rng.random(texts) < 1 / 3) & (minute >= changed_from)
        labels = rng.integers(2, size=texts)
        wrong = rng.random(texts) < np.where(changed, 0.9, 0.04)
        yield Minute(
            MIDNIGHT // 60 + first + minute, np.where(changed, 25, rng.poisson(8, texts)).astype(float), labels,
            rng.uniform(0.4, 1, texts), np.where(wrong, 1 - labels, labels),
        )  # fmt: skip


def lines(given: Iterable[Minute], name: str = "r") -> Iterator[str]:
    """As the server writes them, one text a request."""
    for minute in given:
        for number, code in enumerate(LAYOUT.encode(minute.bins)):
            when = datetime.fromtimestamp(minute.number * 60 + number * 4.9, UTC).isoformat(timespec="milliseconds")
            record = {
                "time": when.replace("+00:00", "Z"),
                "request_id": f"{name}{minute.number}-{number}",
                "label": LABELS[minute.labels[number]],
                "confidence": round(float(minute.confidence[number]), 6),
                "drift": code,
            }
            yield orjson.dumps(record).decode() + "\n"


def write_log(path: Path, given: Iterable[Minute], name: str = "r") -> Path:
    path.write_text("".join(lines(given, name)), encoding="utf-8")
    return path


def write_labels(path: Path, given: Iterable[Minute], name: str = "r") -> Path:
    rows = [
        f"{name}{minute.number}-{number},{LABELS[true]}\n" for minute in given for number, true in enumerate(minute.true.tolist())
    ]
    path.write_text("request_id,label\n" + "".join(rows), encoding="utf-8")
    return path


@cache
def normal_baseline(count: int = 2000, seed: int = 99) -> Baseline:
    return learn(
        LAYOUT, ((0, minute.counts + minute.outcomes) for minute in minutes(count, seed=seed)), note="two thousand minutes"
    )


def write_baseline(path: Path, baseline: Baseline | None = None) -> Path:
    path.write_bytes((baseline or normal_baseline()).to_bytes())
    return path


def run(*arguments: str | Path) -> Result:
    whole = typer.Typer()
    whole.add_typer(app, name="drift")
    return CliRunner().invoke(whole, ["drift", *map(str, arguments)], env={"COLUMNS": "150"})


def example(heading: str) -> tuple[list[str], list[str]]:
    """The arguments of the first command below a heading of the page, and the lines that it prints, without blank ones."""
    page = (Path(__file__).parents[3] / "docs" / "drift-commands.md").read_text(encoding="utf-8").partition(heading)[2]
    command, shown = re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[:2]
    return command.split()[2:], without_blanks(shown)


def without_blanks(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]
