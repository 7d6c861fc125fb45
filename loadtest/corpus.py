"""Seeded support tickets of mixed lengths, all different from each other; and long ones.

Lengths follow the distribution that tickets have: lognormal with a median of 26 tokens and a sigma of 0.85, clipped to 4..128.
English support text has about 0.8 words a token, special tokens aside. Long texts are evenly spread over 128 to 256 tokens: e-mails
with what was quoted, still within the built-in model's limit, so that none of them is cut.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

MEDIAN_TOKENS = 26
SIGMA = 0.85
SHORTEST, LONGEST = 4, 128
WORDS_PER_TOKEN = 0.8
# The words below have 1.07 tokens each when there are many of them: these are 130 to 245 tokens.
LONG_WORDS = (125, 215)

WORDS = (  # noqa: SIM905 - as text, it can be read
    " account after again already amount another answer anyone app asked bank before browser button cancel card change"
    " charged checkout code connect contact contract could crash customer days delivery device does download email error"
    " every export fails first form freezes from getting have help hello help hour how invoice keeps last login loading"
    " message minutes month money need never nothing number old online open order page paid password payment phone plan"
    " please price problem question received refund reset screen sent service settings show since sign still stopped"
    " subscription support sync team thanks the this ticket time today tried trying twice update upload using wait want"
    " was week went what when where which why with working wrong yesterday your"
).split()


def tickets(seed: int) -> Iterator[str]:
    """Tickets without end, the same for the same seed; each carries a reference number, so that no two are alike."""
    generator = random.Random(seed)
    for number in range(1, 10**9):
        tokens = min(max(round(generator.lognormvariate(math.log(MEDIAN_TOKENS), SIGMA)), SHORTEST), LONGEST)
        words = generator.choices(WORDS, k=max(1, round((tokens - 2) * WORDS_PER_TOKEN) - 1))
        yield f"{' '.join(words)} {seed % 1000}{number}"


def long_tickets(seed: int) -> Iterator[str]:
    """The same of long texts."""
    generator = random.Random(seed)
    for number in range(1, 10**9):
        words = generator.choices(WORDS, k=generator.randint(*LONG_WORDS))
        yield f"{' '.join(words)} {seed % 1000}{number}"
