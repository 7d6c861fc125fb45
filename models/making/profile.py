"""A bundle's profile: what the texts that its model was trained on look like, for drift detection.

`drift.profile` says what is in one and how it is learned. This module gets the observations: it runs texts through the model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from drift import Observations, Profile, foreign_share, learn_profile
from models.classifier import Classifier
from models.making.augment import change
from models.making.dataset import Example
from models.making.judge import targets_of
from models.making.pieces import Pieces
from models.types import BlankTextError, Encoding

# Fewer texts than this of either kind give ranks and rarities that are worth nothing.
FEWEST_TEXTS: Final = 150
# More training texts hardly change what is usual, and take minutes.
MOST_TRAINING_TEXTS: Final = 20_000
BATCH: Final = 32
# How held-out texts are changed so that the error estimate has seen errors. These steps need no pieces.
HARDER: Final = (("typos 6%",), ("lowercase",))
NO_PIECES: Final = Pieces({}, {}, (), "")
SEED: Final = 17


@dataclass(frozen=True, slots=True)
class ProfileTexts:
    """Texts to learn a profile from: those that the model was trained on, texts held out from training, and more held-out ones that
    are hard for it.
    """

    training: Sequence[str]
    held_out: Sequence[Example]
    harder: Sequence[Example] = ()


def texts_of(training: Sequence[str], dev: Sequence[Example]) -> ProfileTexts | str:
    """What `build` has: the training texts if they were given, else half of the dev texts stands for them, and the dev texts.

    Returns the reason where that is not enough for a profile.
    """
    if len(dev) < FEWEST_TEXTS * (1 if training else 2):
        needed = FEWEST_TEXTS if training else f"{2 * FEWEST_TEXTS}, or {FEWEST_TEXTS} and the training texts (--training)"
        return f"{len(dev)} dev texts; it takes {needed}"
    if training and len(training) < FEWEST_TEXTS:
        return f"{len(training)} training texts; it takes {FEWEST_TEXTS}"
    held_out = list(dev)
    if not training:
        random.Random(SEED).shuffle(held_out)
        half = len(held_out) // 2
        training, held_out = [example.text for example in held_out[:half]], held_out[half:]
    return ProfileTexts(training, held_out, harder(held_out))


def harder(examples: Sequence[Example]) -> list[Example]:
    """The examples with typing errors, and in lower case without punctuation."""
    generator = random.Random(SEED)
    return [Example(change(example.text, steps, NO_PIECES, generator), example.label) for steps in HARDER for example in examples]


def make_profile(classifier: Classifier, texts: ProfileTexts) -> Profile:
    """Observe the texts and learn; the profile is as a reader of its file will have it.

    Raises `DatasetError` for labels that the model does not have, and `ProfileError` if what was learned is of no use: too few
    texts, or numbers that are not finite.
    """
    training = texts.training
    if len(training) > MOST_TRAINING_TEXTS:
        training = random.Random(SEED).sample(training, MOST_TRAINING_TEXTS)
    profile = learn_profile(
        observe(classifier, training),
        observe(classifier, [example.text for example in texts.held_out]),
        targets_of(texts.held_out, classifier.labels),
        labels=classifier.labels,
        vocabulary=classifier.vocabulary,
        specials=classifier.special_ids,
        harder=[
            (observe(classifier, [example.text for example in texts.harder]), targets_of(texts.harder, classifier.labels)),
        ]
        if texts.harder
        else [],
    )
    profile = Profile.from_bytes(profile.to_bytes())
    profile.check_channels()
    return profile


def observe(classifier: Classifier, texts: Sequence[str]) -> Observations:
    """What the model says of each text, and its first-token vectors where it gives them. A blank text counts as one without tokens
    of its own.
    """
    encodings = [_encode(classifier, text) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: len(encodings[index]))
    labels, confidence = np.zeros(len(texts), dtype=np.int64), np.zeros(len(texts))
    first = None
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        predictions = classifier.observe([encodings[index] for index in batch])
        labels[batch] = [classifier.labels.index(prediction.label) for prediction in predictions]
        confidence[batch] = [prediction.confidence for prediction in predictions]
        vectors = [prediction.first for prediction in predictions if prediction.first is not None]
        if vectors:
            if first is None:
                first = np.zeros((len(texts), len(vectors[0])), dtype=np.float32)
            first[batch] = vectors
    return Observations(
        [encoding.ids for encoding in encodings], labels, confidence, first, np.array([foreign_share(text) for text in texts])
    )


def _encode(classifier: Classifier, text: str) -> Encoding:
    try:
        return classifier.encode(text)
    except BlankTextError:
        return Encoding(classifier.special_ids, truncated=False)
