"""Encodings to predictions: a verified bundle behind its engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import perf_counter
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from models.bundle import TOKENIZER, Bundle, BundleError, Manifest
from models.engines import ENGINES, Engine, Outputs
from models.passes import MOST_TOKENS
from models.problem import problem_of
from models.tokenizer import Tokenizer, TokenizerError
from models.types import Encoding, End, Prediction, Token
from models.windows import Join, join_logits

Floats = npt.NDArray[np.floating[Any]]


# How long the warm-up may begin another of its largest passes, and the shortest texts in them, in tokens.
WARM_UP_SECONDS: Final = 1.0
SHORTEST_WARM_UP: Final = 16


class SelfCheckFailed(Exception):
    """Raised when the model does not give its golden texts' logits on this machine."""


class Classifier:
    """A verified bundle, ready to classify. Implements `models.types.TextClassifier`; holds no mutable state of its own.

    `threads` share each pass; more than 1 is for measuring only (see `models.engines.open_session`).
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        manifest = bundle.manifest
        self.manifest: Manifest = manifest
        self.labels = tuple(manifest.labels)
        self.problem = problem_of(manifest.problem_type, manifest.labels, manifest.thresholds)
        self.max_length = manifest.max_length
        self.identity = f"{manifest.name}@{manifest.version}"
        # Of the whole manifest: it has the hashes of the other files, and what else decides an answer. Without what is not in
        # manifests of earlier formats, so that their fingerprints stay.
        self.fingerprint = hashlib.sha256(manifest.model_dump_json(exclude_defaults=True).encode()).hexdigest()
        try:
            self._tokenizer = Tokenizer(bundle.tokenizer, manifest.max_length)
        except TokenizerError as error:
            raise BundleError(f"{TOKENIZER}: {error}") from error
        self._engine: Engine = ENGINES[manifest.engine](bundle.model, manifest, threads)
        # The bytes of the bundle's profile, for drift detection.
        self.profile = bundle.profile

    @classmethod
    def open(cls, folder: Path, threads: int = 1) -> Self:
        """Open a bundle folder. Raises `BundleError` when it is not whole or not loadable."""
        return cls(Bundle.open(folder), threads)

    @property
    def golden_texts(self) -> list[str]:
        """Texts whose logits the manifest has."""
        return [golden.text for golden in self.manifest.goldens]

    @property
    def vocabulary(self) -> int:
        """One more than the largest token id there is."""
        return self._tokenizer.vocabulary

    @property
    def first_width(self) -> int | None:
        """Dimensions of the first-token vectors; None where the bundle's graph gives none."""
        return self._engine.first_width

    @property
    def pieces(self) -> list[str]:
        """The strings of all token ids, in their order; empty for ids that there are not."""
        return self._tokenizer.pieces

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The ids of the special tokens that every text gets, such as [CLS] and [SEP]."""
        return tuple(token.id for token in self.tokens("a", special=True) if token.special)

    def encode(self, text: str, keep: End | None = None) -> Encoding:
        """Tokenize one text; of one that is too long, keep this end, or the one that the model was trained on.

        Raises `BlankTextError`.
        """
        return self._tokenizer.encode(text, keep)

    def windows(self, text: str, overlap: int, most: int) -> list[Encoding]:
        """Tokenize one text, in windows if it is longer than the model reads: see `models.tokenizer`. Raises `BlankTextError`."""
        return self._tokenizer.windows(text, overlap, most)

    def tokens(self, text: str, *, special: bool) -> list[Token]:
        """The tokens of a text, which is not cut at `max_length`; with the model's special tokens or without."""
        return self._tokenizer.tokens(text, special=special)

    def predict(self, encodings: Sequence[Encoding]) -> list[Prediction]:
        """Classify encodings; as many predictions, in the same order. Raises `ArithmeticError` if a logit is not finite."""
        return self._predictions(self.logits(encodings), [None] * len(encodings))

    def observe(self, encodings: Sequence[Encoding]) -> list[Prediction]:
        """As `predict`, with the first-token vectors where the bundle's graph gives them."""
        if not encodings:
            return []
        outputs = self.outputs(encodings)
        return self._predictions(outputs.logits, [None] * len(encodings) if outputs.first is None else outputs.first)

    def joined(self, windows: Sequence[Prediction], join: Join) -> Prediction:
        """One prediction from those of a text's windows; it has the first window's vector."""
        logits = join_logits(np.array([prediction.logits for prediction in windows]), join)
        return self._predictions(logits[None], [windows[0].first])[0]

    def _predictions(self, logits: Floats, first: Iterable[Floats | None]) -> list[Prediction]:
        if not np.isfinite(logits).all():
            raise ArithmeticError(f"{self.identity} computed values that are not finite")
        scores = self.problem.scores(logits / self.manifest.temperature)
        best = scores.argmax(axis=1)
        return [
            Prediction(self.labels[winner], row[winner], tuple(row), tuple(raw), vector)
            for winner, row, raw, vector in zip(best.tolist(), scores.tolist(), logits.tolist(), first, strict=True)
        ]

    def divide(self, lengths: Sequence[int]) -> Sequence[Sequence[int]]:
        """Divide texts of these lengths, in tokens, into the forward passes that `predict` would make of them, as indices."""
        return self._engine.divide(lengths)

    def logits(self, encodings: Sequence[Encoding]) -> Floats:
        """Raw logits, shape [texts, labels], before temperature."""
        if not encodings:
            return np.empty((0, len(self.labels)), dtype=np.float32)
        return self._engine.logits(encodings)

    def outputs(self, encodings: Sequence[Encoding]) -> Outputs:
        """Raw logits as above, with the first-token vectors where the graph gives them; at least one encoding."""
        return self._engine.outputs(encodings)

    def self_check(self) -> None:
        """Compare the golden texts' logits with the manifest's. Raises `SelfCheckFailed` with the worst difference and a remedy."""
        goldens = self.manifest.goldens
        try:
            encodings = [self.encode(golden.text) for golden in goldens]
            alone = np.concatenate([self.logits([encoding]) for encoding in encodings])
            # One more, so that even a single golden text has company.
            ids = encodings[0].ids
            company = Encoding((ids[:1] + ids)[: self.manifest.max_length], truncated=False)
            together = self.logits([*encodings, company])[:-1]
        except Exception as error:  # the runtime's exceptions share no public base class
            raise SelfCheckFailed(f"{self.identity} cannot classify its golden texts: {error}") from error
        differences = np.abs(alone - np.array([golden.logits for golden in goldens])).max(axis=1)
        worst = int(np.argmax(differences))  # the first NaN, should there be one
        allowed = self.manifest.golden_tolerance
        if not differences[worst] <= allowed:
            raise SelfCheckFailed(
                f"{self.identity} computes wrong logits on this machine: off by {differences[worst]:.4g} where {allowed:.4g} is"
                f" allowed, on the golden text {goldens[worst].text[:40]!r}. On an x86 CPU without VNNI, 8-bit products can"
                " saturate: build the bundle again with --reduce-range or --precision fp32"
            )
        if self._engine.is_batch_invariant and not np.array_equal(together, alone):
            raise SelfCheckFailed(
                f"{self.identity}: on this machine, a text's logits depend on the texts in its batch. Please report it with the"
                " CPU's model and ONNX Runtime's version; a bundle built with --engine padded does without that promise"
            )

    def warm_up(self, workers: int = 1) -> None:
        """Run passes of several shapes: the first customer shall neither pay for the first allocations nor find the first fault.

        The largest passes are run by all `workers` at the same time, as may happen in service. The runtime's arena doubles when it
        has no room; so it has its size now, and does not jump in the midst of service.
        """
        ids, limit = self.encode(self.manifest.goldens[0].text).ids, self.max_length
        for length in sorted({min(8, limit), min(32, limit), limit}):  # no pass may be longer than the bundle reads
            self.logits([Encoding((ids * length)[:length], truncated=False)])
        self.logits([Encoding(ids, truncated=False), Encoding((ids * 2)[:limit], truncated=False)])
        ended, barrier = perf_counter() + WARM_UP_SECONDS, Barrier(workers)

        def run(batch: list[Encoding]) -> None:
            barrier.wait()
            self.logits(batch)

        length = limit
        with ThreadPoolExecutor(workers) as pool:
            while length >= SHORTEST_WARM_UP and perf_counter() < ended:
                batch = [Encoding((ids * length)[:length], truncated=False)] * max(1, MOST_TOKENS // length)
                list(pool.map(run, [batch] * workers))
                length //= 4
