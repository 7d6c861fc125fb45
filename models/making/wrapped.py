"""Tickets as a help desk gets them, one row for each way: what the built-in model is measured on beside plain tickets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from models.making.augment import change
from models.making.dataset import Example
from models.making.pieces import Pieces

# A row's name and its steps of augmentation.
ROWS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("greeting in front", ("greeting",)),
    ("signature and confidentiality notice behind", ("signature", "disclaimer")),
    ("quoted earlier message", ("quote",)),
    ("greeting, signature, notice and quoted message", ("greeting", "signature", "disclaimer", "quote")),
    ("HTML of a mail program", ("html",)),
    ("HTML, with greeting and signature", ("greeting", "signature", "html")),
    ("From, To and Subject lines in front", ("header",)),
    ("forwarded", ("forward",)),
    ("e-mail in two languages", ("languages",)),
    ("ticket-system form", ("form",)),
    ("Markdown", ("markdown",)),
    ("links, order and customer numbers", ("reference",)),
    ("log excerpt or stack trace", ("log",)),
    ("upper case", ("shouting",)),
    ("lower case without punctuation", ("lowercase",)),
    ("typing errors in 3% of letters", ("typos 3%",)),
    ("typing errors in 6% of letters", ("typos 6%",)),
)
# Each ticket so many times a row, with other pieces.
COPIES: Final = 2


def wrapped(examples: Sequence[Example], steps: Sequence[str], pieces: Pieces, seed: int) -> list[Example]:
    """Each example `COPIES` times, changed by the steps with pieces drawn by the seed."""
    generator = random.Random(f"{seed} {' '.join(steps)}")
    return [
        Example(change(example.text, steps, pieces, generator), example.label, example.weight)
        for example in examples
        for _ in range(COPIES)
    ]
