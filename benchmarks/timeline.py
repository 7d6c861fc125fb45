"""`python -m benchmarks.timeline FILE.png`: a picture of what the batcher does, drawn from a real run of it.

Texts of 8 to 60 tokens arrive at two workers, whose passes take 10 ms and 0.5 ms a token: ten times what they take in truth, so
that the delays of this machine do not show. Needs matplotlib.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from batching import Batcher, BatchPolicy, DeadlineExceeded, DeadlineUnmeetable, PassFailed, Priority

POISON = "bad"
# Enough for a line through their costs and durations.
WARM_UP_PASSES = 60
POLICY = BatchPolicy(max_items=4, max_cost=96, look_ahead=16, max_passed_over=2, workers=2)


@dataclass(frozen=True, slots=True)
class Text:
    """One arrival: when, in milliseconds; how many tokens; what is special about it."""

    name: str
    at: float
    tokens: int
    priority: Priority = Priority.INTERACTIVE
    timeout: float | None = None
    leaves: float | None = None
    is_bad: bool = False


@dataclass(slots=True)
class Life:
    """What became of a text: when each came about, in milliseconds."""

    text: Text
    passes: list[tuple[float, float, int]] = field(default_factory=list)
    end: float = 0.0
    outcome: str = ""


ARRIVALS = (
    Text("a", 0, 20),
    Text("b", 8, 40),
    Text("c", 12, 10),
    Text("d", 14, 56),
    Text("e", 15, 12),
    Text("f", 17, 9),
    Text("g", 19, 30, priority=Priority.BULK),
    Text("h", 20, 30, priority=Priority.BULK),
    Text("i", 22, 14),
    Text("j", 24, 50, timeout=0.040),
    Text("k", 26, 44, leaves=14),
    Text("l", 72, 8, is_bad=True),
    Text("m", 73, 9),
    Text("n", 74, 11),
    Text("o", 75, 10),
)


class Recorder:
    """A model that only takes its time, and writes down which worker did what and when."""

    def __init__(self) -> None:
        self.lives = {text.name: Life(text) for text in ARRIVALS}
        self._busy: set[int] = set()
        self.begin()

    def begin(self) -> None:
        """From now on, passes are written down."""
        self.passes: list[tuple[float, float, int, str, bool]] = []
        self._start = asyncio.get_running_loop().time()

    def now(self) -> float:
        """Milliseconds since the start."""
        return (asyncio.get_running_loop().time() - self._start) * 1000

    async def __call__(self, texts: list[Text]) -> Sequence[str]:
        """One pass."""
        worker = min(set(range(POLICY.workers)) - self._busy)
        self._busy.add(worker)
        begin = self.now()
        await asyncio.sleep(0.010 + 0.0005 * sum(text.tokens for text in texts))
        self._busy.remove(worker)
        is_bad = any(text.is_bad for text in texts)
        self.passes.append((begin, self.now(), worker, " ".join(text.name for text in texts), is_bad))
        for text in filter(lambda text: text.name in self.lives, texts):
            self.lives[text.name].passes.append((begin, self.now(), worker))
        if is_bad:
            raise ValueError(POISON)
        return [text.name for text in texts]


async def live(batcher: Batcher[Text, str], recorder: Recorder, text: Text) -> None:
    """One caller."""
    life = recorder.lives[text.name]
    await asyncio.sleep(text.at / 1000)
    try:
        if text.leaves is not None:
            async with asyncio.timeout(text.leaves / 1000):
                await batcher.submit(text, priority=text.priority)
        else:
            await batcher.submit(text, priority=text.priority, timeout=text.timeout)
    except DeadlineUnmeetable:
        life.outcome = "rejected"
    except DeadlineExceeded:
        life.outcome = "deadline"
    except PassFailed:
        life.outcome = "fails alone"
    except TimeoutError:
        life.outcome = "caller left"
    life.end = recorder.now()


async def run() -> Recorder:
    """The whole run."""
    recorder = Recorder()
    async with Batcher(recorder, POLICY, cost=lambda text: text.tokens) as batcher:
        # As in a server that has been at work: the batcher knows what passes take.
        for _ in range(WARM_UP_PASSES // 2):
            await asyncio.gather(*(batcher.submit(Text("", 0, tokens)) for tokens in (10, 80)))
        recorder.begin()
        await asyncio.gather(*(live(batcher, recorder, text) for text in ARRIVALS))
    return recorder


def draw(recorder: Recorder, path: Path) -> None:
    """Above, the texts, each from arrival to outcome; below, the workers and their passes."""
    colours = ("#2b6cb0", "#2f855a")
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4.2, 1))
    for row, life in enumerate(recorder.lives.values()):
        text = life.text
        grey = "#d6bcfa" if text.priority is Priority.BULK else "#cbd5e0"
        first = life.passes[0][0] if life.passes else life.end
        above.barh(row, first - text.at, left=text.at, color=grey, height=0.62)
        for begin, end, worker in life.passes:
            above.barh(row, min(end, life.end) - begin, left=begin, color=colours[worker], height=0.62)
        above.text(
            life.end + 1, row, life.outcome or "answer", va="center", fontsize=8, color="#c53030" if life.outcome else "#4a5568"
        )
    labels = [
        f"{life.text.name}: {life.text.tokens} tokens" + (", bulk" if life.text.priority is Priority.BULK else "")
        for life in recorder.lives.values()
    ]
    above.set_yticks(range(len(labels)), labels, fontsize=8)
    above.invert_yaxis()
    above.set_title(
        "Each text from arrival to outcome: waiting (grey; bulk: violet), in a pass (the colour of its worker)", fontsize=10
    )
    for begin, end, worker, names, is_bad in recorder.passes:
        below.barh(
            worker,
            end - begin - 0.6,
            left=begin,
            color=colours[worker],
            height=0.7,
            hatch="//" if is_bad else None,
            edgecolor="white",
        )
        below.text((begin + end) / 2, worker, names, ha="center", va="center", fontsize=8, color="white", weight="bold")
    below.set_xlim(0, 10 + max(life.end for life in recorder.lives.values()))
    below.set_yticks(range(POLICY.workers), [f"worker {number + 1}" for number in range(POLICY.workers)], fontsize=8)
    below.invert_yaxis()
    below.set_xlabel("milliseconds; a pass takes 10 ms and 0.5 ms a token; at most 4 texts or 96 tokens; hatched: the pass fails")
    for axis in (above, below):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(asyncio.run(run()), Path(sys.argv[1]))
