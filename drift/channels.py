"""Channels: what is counted of each text, and histograms that add up exactly.

A *channel* sorts texts into a few bins. Its bins are fixed beforehand, so that counts of different minutes, replicas, restarts and
logs may be added: the counts of a *block* (a minute, usually) are one vector of integers, and that vector is all the state there
is. A text for which a channel has no value (no vector, another label) adds nothing to it.

A *tail* is a set of bins that a change may fill. For an ordered channel these are all bins from some bin upwards and all below one;
for a categorical channel each bin alone, and all but that one. Everything that is tested is the share of a tail.

1. A text adds 0 or 1 to one bin of each channel, whatever other texts do.
2. The counts of two sets of texts together are the sum of their counts.

A text's bins, one a channel, can be written as a short string, for a log: `Layout.encode`. It begins with four letters of the
layout's fingerprint, then has one letter a channel (more for channels of more than 64 bins), a full stop where there is no bin.
Three full stops or more are written as `~` and a letter for their number; those at the end are left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Bins = npt.NDArray[np.int64]
LevelName = Literal["input", "output", "outcome"]
LEVELS: tuple[LevelName, ...] = ("input", "output", "outcome")

# Letters of 6 bits each; that of -1, no bin, is the last.
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
_LETTERS: Final = np.frombuffer(_ALPHABET.encode(), np.uint8)
_VALUES: Final = np.full(128, -2)
_VALUES[_LETTERS] = [*range(64), -1]
_GAPS: Final = re.compile(r"\.{3,63}")
_SHORT_GAPS: Final = re.compile(r"~([D-Za-z0-9_-])")


@dataclass(frozen=True, slots=True)
class Channel:
    """What is counted: by `edges`, bin k holds values from edge k-1 up to below edge k; without edges, `categories` name the bins.

    `rising` channels have tails upwards only: fewer errors are no fault. What is not `tested` is counted for people.
    Raises `ValueError` for edges that do not rise, for fewer than two bins, and for edges with categories.
    """

    name: str
    level: LevelName
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    rising: bool = False
    tested: bool = True

    def __post_init__(self) -> None:
        if bool(self.edges) == bool(self.categories) or len(self.categories) == 1:
            raise ValueError(f"channel {self.name}: give either edges, or at least two categories")
        if self.edges and not (np.isfinite(self.edges).all() and np.all(np.diff(self.edges) > 0)):
            raise ValueError(f"channel {self.name}: edges must be finite and rise")

    @property
    def bins(self) -> int:
        """How many there are."""
        return len(self.categories) or len(self.edges) + 1

    def place(self, values: npt.ArrayLike) -> Counts:
        """The bin of each value, -1 for those that have none (NaN, or a negative category)."""
        given = np.asarray(values, dtype=np.float64)
        missing = np.isnan(given)
        if self.edges:
            places = np.searchsorted(self.edges, given, side="right")
        else:
            places = np.where(missing, -1, given).astype(np.int64)
            missing = missing | (places < 0)
            if np.any(places >= self.bins):
                raise ValueError(f"channel {self.name}: there is no category {places.max()}")
        return np.where(missing, -1, places).astype(np.int64)

    def tails(self) -> npt.NDArray[np.bool_]:
        """The tails, shape [tails, bins], none twice; none if the channel is not tested."""
        if not self.tested:
            return np.zeros((0, self.bins), dtype=bool)
        if self.edges:
            up = np.arange(self.bins) >= np.arange(1, self.bins)[:, None]
        elif self.rising:
            up = np.eye(self.bins, dtype=bool)[1:]
        else:
            up = np.eye(self.bins, dtype=bool)
        return up if self.rising else np.unique(np.concatenate([up, ~up]), axis=0)

    def describe(self, tail: npt.NDArray[np.bool_]) -> str:
        """A tail in words, such as `novelty at least 6.2`."""
        places = np.flatnonzero(tail)
        if self.categories:
            names = " or ".join(self.categories[place] for place in places)
            return f"{self.name} {names}"
        if places[0] == 0:
            return f"{self.name} below {self.edges[places[-1]]:.4g}"
        return f"{self.name} at least {self.edges[places[0] - 1]:.4g}"


class Layout:
    """Channels side by side in one vector of counts. Holds no mutable state. Raises `ValueError` if two have the same name."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self.channels = tuple(channels)
        ends = np.cumsum([channel.bins for channel in channels]).tolist()
        self.width: int = ends[-1] if ends else 0
        self._places = {channel.name: slice(end - channel.bins, end) for channel, end in zip(self.channels, ends, strict=True)}
        self._numbers = {channel.name: number for number, channel in enumerate(self.channels)}
        if len(self._places) != len(self.channels):
            raise ValueError("two channels have the same name")
        content = json.dumps([asdict(channel) for channel in self.channels], sort_keys=True)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]
        self.mark = self.fingerprint[:4]  # what codes begin with
        self._limits = np.array([channel.bins for channel in self.channels], dtype=np.int64)
        self._starts = np.array(ends, dtype=np.int64) - self._limits
        # Of each letter of an encoded text: its channel, and by how many bits it is shifted.
        letters = [
            (number, 6 * place) for number, channel in enumerate(channels) for place in reversed(range(_letters_of(channel.bins)))
        ]
        self._owners, self._shifts = np.array(letters, dtype=np.int64).reshape(-1, 2).T

    def place(self, name: str) -> slice:
        """Where a channel's bins lie in a vector of counts. Raises `KeyError`."""
        return self._places[name]

    def count(self, values: Mapping[str, npt.ArrayLike]) -> Counts:
        """The counts, shape [width], of some texts: for each channel one value a text; a channel that is not named counts none.

        Raises `KeyError` for a name that is no channel's.
        """
        counts = np.zeros(self.width, dtype=np.int64)
        by_name = {channel.name: channel for channel in self.channels}
        for name, given in values.items():
            bins = by_name[name].place(given)
            counts[self._places[name]] = np.bincount(bins[bins >= 0], minlength=by_name[name].bins)
        return counts

    def texts(self, counts: Counts) -> int:
        """How many texts the counts, shape [width], are of: by the channel that counted most."""
        return int(np.add.reduceat(counts, self._starts).max()) if self.channels else 0

    def bins(self, values: Mapping[str, npt.ArrayLike]) -> Bins:
        """The bins of each text, shape [texts, channels], -1 for none: from what `count` takes, one value a text in each channel.

        Raises `KeyError` for a name that is no channel's, `ValueError` if channels have different numbers of texts.
        """
        placed = {name: self.channels[self._numbers[name]].place(given) for name, given in values.items()}
        texts = {len(places) for places in placed.values()}
        if len(texts) > 1:
            raise ValueError(f"channels with different numbers of texts: {sorted(texts)}")
        found = np.full((max(texts, default=0), len(self.channels)), -1, dtype=np.int64)
        for name, places in placed.items():
            found[:, self._numbers[name]] = places
        return found

    def count_bins(self, bins: npt.ArrayLike) -> Counts:
        """The counts, shape [width], of texts by their bins, shape [texts, channels]. Raises `ValueError` for impossible bins."""
        found = self._checked(bins)
        return np.bincount((found + self._starts)[found >= 0], minlength=self.width).astype(np.int64)

    def encode(self, bins: npt.ArrayLike) -> list[str]:
        """A short string of each text's bins, shape [texts, channels]: see above. Raises `ValueError` for impossible bins."""
        found = self._checked(bins)[:, self._owners]
        letters = _LETTERS[np.where(found < 0, -1, (found >> self._shifts) & 63)]
        return [self.mark + _GAPS.sub(_shortened, row.tobytes().decode().rstrip(".")) for row in letters]

    def decode(self, codes: Sequence[str]) -> Bins:
        """The bins of each text, shape [texts, channels], from what `encode` made of them.

        Raises `ValueError` for the code of another layout, or for none at all.
        """
        length = len(self._owners)
        rows = bytearray()
        for code in codes:
            if not code.startswith(self.mark):
                raise ValueError(f"{code[:80]!r} is not of this layout, whose codes begin with {self.mark}")
            row = _SHORT_GAPS.sub(_lengthened, code[len(self.mark) :]).ljust(length, ".")
            if len(row) != length or not row.isascii():
                raise ValueError(f"{code[:80]!r} does not fit to the {len(self.channels)} channels of the layout")
            rows += row.encode()
        values = _VALUES[np.frombuffer(rows, np.uint8)].reshape(len(codes), length)
        bins = np.zeros((len(codes), len(self.channels)), dtype=np.int64)
        np.add.at(bins.T, self._owners, (np.maximum(values, 0) << self._shifts).T)
        absent = np.zeros_like(bins)
        np.add.at(absent.T, self._owners, (values < 0).T.astype(np.int64))
        whole = (absent == 0) | (absent == np.bincount(self._owners, minlength=len(self.channels)))
        wrong = np.flatnonzero((values < -1).any(axis=1) | (~whole | (bins >= self._limits)).any(axis=1))
        if len(wrong):
            raise ValueError(f"{codes[wrong[0]][:80]!r} has bins that the layout has not")
        return np.where(absent > 0, -1, bins)

    def _checked(self, bins: npt.ArrayLike) -> Bins:
        found = np.asarray(bins, dtype=np.int64)
        if found.ndim != 2 or found.shape[1] != len(self.channels):
            raise ValueError(f"bins of shape {found.shape} do not fit to {len(self.channels)} channels")
        if len(found) and not ((found >= -1) & (found < self._limits)).all():
            raise ValueError("a channel has not so many bins")
        return found

    def at(self, level: LevelName) -> tuple[Channel, ...]:
        """The tested channels of a level."""
        return tuple(channel for channel in self.channels if channel.level == level and channel.tested)

    def to_json(self) -> list[dict[str, Any]]:
        """For a file."""
        return [asdict(channel) for channel in self.channels]

    @classmethod
    def from_json(cls, content: Sequence[Mapping[str, Any]]) -> Layout:
        """As `to_json` gave it. Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
        return cls(
            [
                Channel(**{**item, "edges": tuple(map(float, item["edges"])), "categories": tuple(map(str, item["categories"]))})
                for item in content
            ]
        )


def _letters_of(bins: int) -> int:
    return max(1, -(-(bins - 1).bit_length() // 6))


def _shortened(gap: re.Match[str]) -> str:
    return "~" + _ALPHABET[len(gap[0])]


def _lengthened(gap: re.Match[str]) -> str:
    return "." * _ALPHABET.index(gap[1])
