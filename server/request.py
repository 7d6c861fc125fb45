"""A request for answers, whatever the dialect that it came in."""

from __future__ import annotations

from dataclasses import dataclass

from batching import Priority
from models.types import End
from server.http.errors import RequestError


@dataclass(slots=True)
class ClassifyRequest:
    """A valid request: 1 or more non-blank texts; `single` if it used `text` and wants its answer in the singular.

    `timeout` is in seconds, None if the request names none, infinite if it shall have none. Of a text that is over the model's
    limit, the end `keep` is classified, or the one that the bundle keeps; with `must_fit`, it is an error. `field` is what the
    client calls its texts.
    `min_confidence` is the confidence below which an answer is marked as abstained, None to mark none. With `feedback`, the answer
    carries a token for it. `strip` says whether the text is taken out of HTML documents, None to do as the settings say.
    """

    texts: list[str]
    single: bool
    scores: bool
    timeout: float | None = None
    priority: Priority = Priority.INTERACTIVE
    field: str = ""
    keep: End | None = None
    must_fit: bool = False
    min_confidence: float | None = None
    feedback: bool = False
    strip: bool | None = None

    @property
    def is_plain(self) -> bool:
        """True when texts that are too long are cut as the bundle says."""
        return self.keep is None and not self.must_fit

    def place(self, index: int) -> str:
        """What the client calls the text at `index`, for an error message."""
        return (self.field or "text") if self.single else f"{self.field or 'texts'}[{index}]"


def blank_text(place: str) -> RequestError:
    """The error for a text with nothing to classify in it."""
    return RequestError(422, "blank_text", f"{place}: is blank")


def too_long_text(place: str, limit: int) -> RequestError:
    """The error for a text that would be cut, in a request that does not want that."""
    return RequestError(422, "text_too_long", f"{place}: has more than {limit} tokens, and the request says not to cut it")
