"""The golden texts once more, in idle moments: a model that answers otherwise than at the start has been damaged in memory.

The engine gives a text the same logits to the bit, whenever and in whatever company. So one other bit is proof, and there is no
false alarm. A check is one short pass a text, each begun only when nothing else is to be done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog

from models.types import TextClassifier

log = structlog.stdlib.get_logger("supportbot.goldens")

# Between two looks whether the server is idle.
PAUSE_SECONDS: Final = 0.25

Logits = tuple[float, ...]


class GoldenChecks:
    """Checks a model's golden texts every so many `seconds`; `run` runs a function in a thread for passes, `is_idle` tells whether
    nothing else wants one.
    """

    def __init__(
        self,
        classifier: TextClassifier,
        run: Callable[[Callable[[], Logits]], Awaitable[Logits]],
        is_idle: Callable[[], bool],
        seconds: float,
    ) -> None:
        self._classifier = classifier
        self._run = run
        self._is_idle = is_idle
        self._seconds = seconds
        # Texts since the start, by whether their logits were those of the first time.
        self.held = self.failed = 0

    async def keep_checking(self) -> None:
        """Check for ever. The first time, the logits are learned, which the self-check of the start has found to be right.

        A pass that raises is logged, and says nothing of the text: it is checked again the next time.
        """
        first: dict[str, Logits] = {}
        while texts := self._classifier.golden_texts:
            for text in texts:
                try:
                    logits = await self._logits(text)
                except Exception as error:
                    log.exception("a golden text could not be checked", golden=text[:40], reason=type(error).__name__)
                    continue
                if text not in first:
                    first[text] = logits
                elif logits == first[text]:
                    self.held += 1
                else:
                    self.failed += 1
                    log.critical("a golden text has other logits than at the start: restart the server", golden=text[:40])
            await asyncio.sleep(self._seconds)

    async def _logits(self, text: str) -> Logits:
        while not self._is_idle():  # noqa: ASYNC110 - there is no event for it, and it need not be noticed at once
            await asyncio.sleep(PAUSE_SECONDS)
        return await self._run(partial(_logits, self._classifier, text))


def _logits(classifier: TextClassifier, text: str) -> Logits:
    (prediction,) = classifier.predict([classifier.encode(text)])
    return prediction.logits
