"""Several replicas as one: each tells the counts of the blocks that it has closed, somebody adds them up and decides.

    Recent      at a replica: its last closed blocks, told as plain values from any number on
    Replicas    at who decides: the sum of what all have told, given to one timeline

A block is given to the monitor once every replica has closed it. So the sum decides as one server with all the texts would have
done, in the same block. A replica that is more than `PATIENCE` blocks behind the others is not waited for; what it tells later
counts in the block that is then open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from drift.baseline import BaselineError
from drift.channels import Counts, Layout
from drift.timeline import Timeline

KEPT: Final = 720
PATIENCE: Final = 2


class Recent:
    """The last closed blocks that have texts; `add` is what a `Timeline` calls with them."""

    def __init__(self, layout: Layout, seconds: float, kept: int = KEPT) -> None:
        self._layout = layout
        self._seconds = seconds
        # All mutable state.
        self._blocks: deque[tuple[int, Counts]] = deque(maxlen=kept)
        self._open: int | None = None

    def add(self, number: int, counts: Counts) -> None:
        """A block was closed."""
        self._open = number + 1
        if counts.any():
            self._blocks.append((number, counts.astype(np.int32)))

    def tell(self, since: int | None = None) -> dict[str, Any]:
        """Plain values of the blocks from this number on; of all that are kept, and of the channels, if there is none.

        `open` is the first block that is not closed, the number to ask for next; None before the first.
        """
        told = {
            "layout": self._layout.fingerprint,
            "block_seconds": self._seconds,
            "open": self._open,
            "blocks": [[number, counts.tolist()] for number, counts in self._blocks if since is None or number >= since],
        }
        return told if since is not None else told | {"channels": self._layout.to_json()}


class Replicas:
    """Adds up what replicas tell, by their names, and gives it to a timeline."""

    def __init__(self, timeline: Timeline, names: Sequence[str]) -> None:
        self.timeline = timeline
        # All mutable state: what to ask each replica for next, and the sums of blocks that others may still add to.
        self.next: dict[str, int | None] = dict.fromkeys(names)
        self._waiting: dict[int, Counts] = {}

    def take(self, name: str, told: Mapping[str, Any]) -> None:
        """What a replica told, asked for its `next`. Raises `BaselineError`, and takes nothing, if that does not fit."""
        layout, since = self.timeline.monitor.layout, self.next[name]
        try:
            fingerprint, seconds, opened = told["layout"], float(told["block_seconds"]), told["open"]
            opened = None if opened is None else int(opened)
            blocks = [(int(number), np.array(counts, dtype=np.int64)) for number, counts in told["blocks"]]
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise BaselineError(f"not the counts of a replica: {error!r}") from error
        if fingerprint != layout.fingerprint or seconds != self.timeline.seconds:
            raise BaselineError(
                f"the counts are of another model, or of blocks of {seconds:g} s, not of {self.timeline.seconds:g} s"
            )
        if any(counts.shape != (layout.width,) or counts.min() < 0 for _, counts in blocks):
            raise BaselineError("not the counts of a replica: other bins, or fewer than none")
        for number, counts in blocks:
            if since is None or number >= since:
                self._waiting[number] = self._waiting[number] + counts if number in self._waiting else counts
        if opened is not None:
            self.next[name] = opened

    def close(self) -> None:
        """Give the timeline all blocks that no replica will add to any more; after all have been asked."""
        told = [opened for opened in self.next.values() if opened is not None]
        if not told:
            return
        # A replica that has not had a text yet has closed no block, and is waited for as one that is late.
        slowest = min(told) if len(told) == len(self.next) else 0
        ready = max(slowest, max(told) - PATIENCE)
        for number in sorted(number for number in self._waiting if number < ready):
            self.timeline.add(number, self._waiting.pop(number))
        self.timeline.close(ready)

    def save(self) -> dict[str, Any]:
        """All state, with the timeline's, as plain values."""
        waiting = [[number, counts.tolist()] for number, counts in self._waiting.items()]
        return {"timeline": self.timeline.save(), "next": self.next, "waiting": waiting}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `save` gave, with the same replicas or others.

        Raises `BaselineError`, and changes nothing, if it does not fit, or is nothing of the kind.
        """
        try:
            told = {name: saved["next"].get(name) for name in self.next}
            asked = {name: None if number is None else int(number) for name, number in told.items()}
            waiting = {int(number): np.array(counts, dtype=np.int64) for number, counts in saved["waiting"]}
            timeline = saved["timeline"]
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise BaselineError(f"not the state of replicas: {error!r}") from error
        if any(counts.shape != (self.timeline.monitor.layout.width,) for counts in waiting.values()):
            raise BaselineError("not the state of replicas over these channels")
        self.timeline.restore(timeline)
        self.next, self._waiting = asked, waiting
