"""Which words have become more frequent since a change, or rarer: only where the prediction log has texts (PREDICTION_LOG_TEXT).

Texts are counted and forgotten. Shown are pieces that stand in 20 texts at least and hold no digit: see `drift.words`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from drift import Word, changed_words, count_words
from models.bundle import Bundle
from models.tables import STANDARD_INPUT, open_text
from models.tokenizer import Tokenizer
from models.types import BlankTextError

AT_ONCE: Final = 1000


@dataclass(frozen=True)
class Pieces:
    """Pieces that are more frequent since the change, and those that are rarer; with the texts on both sides of it."""

    more: list[Word]
    less: list[Word]
    before: int
    since: int


def pieces_since(logs: Sequence[Path], bundle: Bundle, change: float) -> Pieces | None:
    """Compare the texts before a time, in seconds since 1970, with those since. None where the logs have no texts on both sides.

    Standard input was read already, and has none. Raises `TokenizerError` and `TableError`.
    """
    tokenizer = Tokenizer(bundle.tokenizer, bundle.manifest.max_length)
    names = tokenizer.pieces
    counts, texts = np.zeros((2, len(names)), dtype=np.int64), [0, 0]
    for path in logs:
        if path in STANDARD_INPUT:
            continue
        for side, ids in _tokenized(path, tokenizer, change):
            counts[side] += count_words(ids, len(names))
            texts[side] += len(ids)
    if not min(texts):
        return None
    return Pieces(*changed_words(counts[1], counts[0], texts[1], texts[0], names), *texts)


def _tokenized(path: Path, tokenizer: Tokenizer, change: float) -> Iterator[tuple[int, list[tuple[int, ...]]]]:
    """Token ids of the log's counted texts, some at a time, before the change (0) or since (1)."""
    waiting: tuple[list[tuple[int, ...]], ...] = ([], [])
    with open_text(path) as file:
        for line in file:
            try:
                record = orjson.loads(line or "")
                side = int(datetime.fromisoformat(record["time"]).timestamp() >= change)
                if "drift" not in record:
                    continue
                waiting[side].append(tokenizer.encode(record["text"]).ids)
            except (ValueError, TypeError, KeyError, BlankTextError):
                continue
            if len(waiting[side]) == AT_ONCE:
                yield side, list(waiting[side])
                waiting[side].clear()
    yield 0, waiting[0]
    yield 1, waiting[1]
