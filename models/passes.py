"""The padding-free pass: which texts run together, and the index arrays that its graph takes.

The tokens of a pass lie end to end. For attention they are viewed as rows of equal width; a row holds one text or, up to
`WIDEST_SHARED_ROW`, several, and a mask keeps them apart. The last layer has a view of its own with one text a row.

What makes a text's logits the same, to the bit, whatever its batch-mates: a text begins in its row at a multiple of `ALIGNMENT`,
the number of lanes in which the runtime's softmax adds up, so that each of its tokens is always in the same lane; all other places
add exact zeros; and no shared row is so wide that the runtime would cut the sum over it into blocks. docs/engine.md has the
argument in full, and `supportbot verify` and the tests try it on random batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.types import Encoding

Array = npt.NDArray[Any]

# Names, types and axes of the graph's inputs. `rows` and `texts` index the pass's tokens, `slots` the flattened rows.
INPUTS: Final[Mapping[str, tuple[type, tuple[str | int, ...]]]] = {
    "input_ids": (np.int64, ("tokens",)),
    "positions": (np.int64, ("tokens",)),
    "rows": (np.int64, ("rows", "width")),
    "mask": (np.float32, ("rows", 1, "width", "width")),
    "slots": (np.int64, ("tokens",)),
    "texts": (np.int64, ("texts", "longest")),
    "text_mask": (np.float32, ("texts", 1, "longest")),
}
ALIGNMENT: Final = 16
NARROWEST_ROW: Final = 32
WIDEST_SHARED_ROW: Final = 128
# The cost of a pass, in units of one token's products (MiniLM-L6, one thread: 62 us): to start it, for each slot in a row, and for
# each cell of the attention matrix. The first is what a pass takes in the server, 0.85 ms, with the way to its thread and back; a
# run of the graph by itself costs `RUN_COST`. The others are fitted to attention measured alone at widths of 32 to 256
# (docs/engine.md).
PASS_COST: Final = 14.0
RUN_COST: Final = 6.0
SLOT_COST: Final = 0.03
CELL_COST: Final = 0.0018
# More tokens in a pass make no product faster, but its intermediate values larger than the cache.
MOST_TOKENS: Final = 512
# Layouts of lone texts up to this many tokens are kept.
MOST_KEPT_TOKENS: Final = 128
# Far below any score, and far from overflowing when a score is added: its share after softmax is exactly 0.
HIDDEN: Final = np.float32(-1e30)


def aligned(length: int) -> int:
    """The length rounded up to a multiple of `ALIGNMENT`."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def place(lengths: Sequence[int]) -> tuple[int, int, list[tuple[int, int]]]:
    """Put texts into rows: (rows, width, [(row, offset) of each text]), first fit in the order given (longest first is best)."""
    width = max(NARROWEST_ROW, aligned(max(lengths)))
    if width > WIDEST_SHARED_ROW:
        return len(lengths), width, [(row, 0) for row in range(len(lengths))]
    ends: list[int] = []
    places: list[tuple[int, int]] = []
    for length in map(aligned, lengths):
        row = next((row for row, end in enumerate(ends) if end + length <= width), len(ends))
        if row == len(ends):
            ends.append(0)
        places.append((row, ends[row]))
        ends[row] += length
    return len(ends), width, places


def plan(lengths: Sequence[int]) -> list[list[int]]:
    """Divide a batch, as indices of `lengths`, into passes, each with its longest text first.

    Texts of like length are a class; from the longest class on, the next one joins the pass unless a pass of its own is cheaper.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    groups: list[list[int]] = []
    for _, same in groupby(order, key=lambda index: _width_class(lengths[index])):
        texts = list(same)
        if groups:
            last = [lengths[index] for index in groups[-1]]
            more = [lengths[index] for index in texts]
            joined = sum(last) + sum(more) <= MOST_TOKENS and _cost([*last, *more]) <= _cost(last) + _cost(more)
            if joined:
                groups[-1] += texts
                continue
        groups += _cut(texts, lengths)
    return groups


def _width_class(length: int) -> int:
    """Rows are as wide as their longest text, so lengths up to the same power of two are near enough to share them."""
    return max(NARROWEST_ROW, 1 << (length - 1).bit_length())


def _cut(texts: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Divide texts into passes of `MOST_TOKENS` or one text."""
    groups: list[list[int]] = []
    tokens = MOST_TOKENS
    for index in texts:
        tokens += lengths[index]
        if tokens > MOST_TOKENS:
            groups.append([])
            tokens = lengths[index]
        groups[-1].append(index)
    return groups


def _cost(lengths: Sequence[int]) -> float:
    """What a pass over texts of these lengths costs, in tokens."""
    rows, width, _ = place(lengths)
    return PASS_COST + sum(lengths) + rows * width * (SLOT_COST + CELL_COST * width)


def feeds(encodings: Sequence[Encoding]) -> dict[str, Array]:
    """The graph's inputs for one pass over these texts, laid end to end in this order.

    All arrays but `input_ids` may be shared with other passes; they are read-only.
    """
    ids = [token for encoding in encodings for token in encoding.ids]
    lengths = tuple(len(encoding) for encoding in encodings)
    layout = _kept_layout(lengths) if len(ids) <= MOST_KEPT_TOKENS and len(lengths) == 1 else _layout(lengths)
    return {"input_ids": np.array(ids, dtype=np.int64), **layout}


def _layout(lengths: Sequence[int]) -> dict[str, Array]:
    """The inputs that depend on the texts' lengths alone."""
    count, width, places = place(lengths)
    sizes = np.array(lengths)
    starts = np.cumsum(sizes) - sizes
    tokens = np.arange(int(sizes.sum()))
    text_of = np.repeat(np.arange(len(lengths)), sizes)
    positions = tokens - starts[text_of]
    slots = np.array([row * width + offset for row, offset in places])[text_of] + positions

    rows = np.zeros(count * width, dtype=np.int64)
    rows[slots] = tokens
    owner = np.full(count * width, -1)
    owner[slots] = text_of
    owners = owner.reshape(count, 1, width)
    mask = np.where(owners[..., None] == owners[:, :, None, :], np.float32(0), HIDDEN)

    longest = aligned(max(lengths))
    # Two texts at least: the runtime computes a product with a single row by another kernel, which rounds otherwise.
    firsts = np.resize(starts, max(2, len(lengths)))
    places_in_text = np.arange(longest)
    inside = places_in_text < np.resize(sizes, len(firsts))[:, None]
    texts = firsts[:, None] + np.where(inside, places_in_text, 0)
    layout = {
        "positions": positions,
        "rows": rows.reshape(count, width),
        "mask": mask,
        "slots": slots,
        "texts": texts,
        "text_mask": np.where(inside, np.float32(0), HIDDEN)[:, None, :],
    }
    for array in layout.values():
        array.flags.writeable = False
    return layout


# A lone text's layout takes longer to make than to keep, above all on a quiet server, where all of it is cold: 0.2 to 0.3 ms. All
# lengths up to this take 4 MB together.
_kept_layout = lru_cache(maxsize=MOST_KEPT_TOKENS)(_layout)
