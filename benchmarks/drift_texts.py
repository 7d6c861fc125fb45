"""The texts of the drift benchmark: who sends them, how they are changed, and what the embedded model says of each.

Each text is tokenized and classified once, and its observation kept in memory or in a file of numbers; streams of millions of texts
are then drawn from these observations. The files are those of the project's ticket data (`test_in_domain.jsonl`, `train.jsonl`
and so on): a line has `text`, `label`, `intent`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.drift_languages import LANGUAGES
from drift import Observations, foreign_share
from models.bundle import Bundle, embedded_bundle
from models.classifier import Classifier
from models.problem import softmax
from models.types import BlankTextError, Encoding

Array = npt.NDArray[np.float64]

PASS_TEXTS: Final = 32
PRODUCTS: Final = ("zentrix", "quillow", "brampay", "novaplug", "orbicam", "tidalink", "fenwave", "lumigo")


@dataclass(frozen=True)
class Texts:
    """Some texts and what the model says of them: arrays of one row a text, lists of one entry."""

    ids: list[tuple[int, ...]]
    foreign: Array
    logits: Array
    first: npt.NDArray[np.float32]
    true: npt.NDArray[np.int64]
    sources: list[str]

    def __len__(self) -> int:
        return len(self.ids)


class Reader:
    """Texts to observations, by the embedded bundle with a second output."""

    def __init__(self) -> None:
        bundle = Bundle.open(embedded_bundle())
        self._classifier = Classifier(bundle)
        self.labels = self._classifier.labels
        self.temperature = bundle.manifest.temperature
        vocabulary = json.loads(bundle.tokenizer)["model"]["vocab"]
        self.pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        self.vocabulary = len(self.pieces)
        self.name = self._classifier.identity

    def pieces_of(self, word: str) -> list[str]:
        """The pieces of a word, as the tokenizer splits it."""
        return [self.pieces[token] for token in self._classifier.encode(word).ids[1:-1]]

    def read(self, raw: Sequence[str], labels: Sequence[str], sources: Sequence[str]) -> Texts:
        """Classify the texts; blank ones are left out."""
        kept: list[str] = []
        truth: list[int] = []
        encodings: list[Encoding] = []
        origins: list[str] = []
        for text, label, source in zip(raw, labels, sources, strict=True):
            try:
                encodings.append(self._classifier.encode(text))
            except BlankTextError:
                continue
            kept.append(text)
            origins.append(source)
            truth.append(self.labels.index(label))
        logits = np.empty((len(kept), len(self.labels)))
        first = np.empty((len(kept), 0), dtype=np.float32)
        order = sorted(range(len(kept)), key=lambda index: len(encodings[index]))
        for group in (order[start : start + PASS_TEXTS] for start in range(0, len(order), PASS_TEXTS)):
            outputs = self._classifier.outputs([encodings[index] for index in group])
            assert outputs.first is not None
            if not first.shape[1]:
                first = np.empty((len(kept), outputs.first.shape[1]), dtype=np.float32)
            logits[group], first[group] = outputs.logits, outputs.first
        ids, foreign = [encoding.ids for encoding in encodings], np.array([foreign_share(text) for text in kept])
        return Texts(ids, foreign, logits, first, np.array(truth), origins)

    def observe(self, texts: Texts, temperature: float | None = None) -> Observations:
        """The texts as answered with this temperature, the bundle's by default."""
        scores = softmax(texts.logits / (temperature or self.temperature))
        return Observations(texts.ids, scores.argmax(axis=1), scores.max(axis=1), texts.first, texts.foreign)


def rows(path: Path) -> tuple[list[str], list[str], list[str]]:
    """Texts, labels and sources of a file."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in found], [row["label"] for row in found], [row["source"] for row in found]


def typing_errors(text: str, rng: np.random.Generator, share: float) -> str:
    """Each letter is dropped, doubled, swapped with the next or replaced with this probability."""
    letters = list(text)
    for place, letter in enumerate(letters):
        if letter.isalpha() and rng.random() < share:
            kind = rng.integers(4)
            if kind == 0:
                letters[place] = ""
            elif kind == 1:
                letters[place] = letter * 2
            elif kind == 2 and place + 1 < len(letters):
                letters[place], letters[place + 1] = letters[place + 1], letter
            else:
                letters[place] = "abcdefghijklmnopqrstuvwxyz"[rng.integers(26)]
    return "".join(letters)


def html(text: str, _: np.random.Generator) -> str:
    """As a mail program would send it."""
    return f'<html><body><div class="message"><p>{text}</p><br/></div></body></html>'


def signature(text: str, rng: np.random.Generator) -> str:
    """A footer below the text."""
    name = ("Best regards,\nAlex Morgan", "Kind regards\nSam Lee, Operations", "Sent from my phone")[rng.integers(3)]
    return f"{text}\n--\n{name}\nThis e-mail and any attachment are confidential and intended for the addressee only."


def mojibake(text: str, _: np.random.Generator) -> str:
    """Typographic quotes and apostrophes, read in the wrong encoding."""
    return text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}").replace("i", "\u00ed", 1).encode().decode("latin-1")


def new_products(text: str, rng: np.random.Generator) -> str:
    """A product that nobody had, in place of a word of five letters or more."""
    places = [found.span() for found in re.finditer(r"[A-Za-z]{5,}", text)]
    if not places:
        return f"{text} {PRODUCTS[rng.integers(len(PRODUCTS))]}"
    start, end = places[rng.integers(len(places))]
    return f"{text[:start]}{PRODUCTS[rng.integers(len(PRODUCTS))]}{text[end:]}"


CHANGES: Final[dict[str, Callable[[str, np.random.Generator], str]]] = {
    "typing errors 2 %": lambda text, rng: typing_errors(text, rng, 0.02),
    "typing errors 8 %": lambda text, rng: typing_errors(text, rng, 0.08),
    "typing errors 20 %": lambda text, rng: typing_errors(text, rng, 0.20),
    "HTML around": html,
    "signature below": signature,
    "mojibake": mojibake,
    "cut at 10 words": lambda text, _: " ".join(text.split()[:10]),
    "new products": new_products,
}


def population(data: Path, reader: Reader) -> dict[str, Texts]:
    """All texts of the benchmark: `train` and `in domain`, the other sources, and the changed texts of `in domain`."""
    raw, truth, sources = rows(data / "test_in_domain.jsonl")
    found = {"train": reader.read(*rows(data / "train.jsonl")), "in domain": reader.read(raw, truth, sources)}
    for name, file in (("live chat", "test_live_chat"), ("Stack Exchange", "test_stackexchange")):
        found[name] = reader.read(*rows(data / f"{file}.jsonl"))
    for name, change in CHANGES.items():
        rng = np.random.default_rng(7)
        found[name] = reader.read([change(text, rng) for text in raw], truth, sources)
    for name, pairs in LANGUAGES.items():
        found[name] = reader.read([text for text, _ in pairs], [label for _, label in pairs], [name] * len(pairs))
    return found
