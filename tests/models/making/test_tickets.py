"""The written tickets: read, labelled, and no ticket that is measured on is trained on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import models.making
from models.making.dataset import read_examples

FOLDER = Path(models.making.__file__).parent / "tickets"
TRAINED = ("train", "next", "mixed", "chat")
CHOSEN_ON = ("dev",)
MEASURED = ("test", "held_out")
# Short ones that were written twice. Found after versions 1.0.0 to 1.2.0 had been trained on them.
WRITTEN_TWICE = {"charged twice this month", "are you open on easter monday", "stop charging me"}


def bare(name: str) -> list[str]:
    """The texts' letters and digits, so that no difference of case or punctuation hides a copy."""
    return [re.sub(r"[\W_]+", " ", row.text.lower()).strip() for row in read_examples([(FOLDER / f"{name}.jsonl", 1.0)])]


def test_every_file_has_a_use() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == {*TRAINED, *CHOSEN_ON, *MEASURED}


@pytest.mark.parametrize("name", [*CHOSEN_ON, *MEASURED])
def test_no_ticket_is_both_trained_and_measured_on(name: str) -> None:
    trained = {text for other in TRAINED for text in bare(other)}
    assert set(bare(name)) & trained <= WRITTEN_TWICE


# Half of what people type into a chat is general.
@pytest.mark.parametrize("name", [*TRAINED[:-1], *CHOSEN_ON, *MEASURED])
def test_the_labels_are_balanced(name: str) -> None:
    examples = read_examples([(FOLDER / f"{name}.jsonl", 1.0)])
    labels = [example.label for example in examples]
    assert set(labels) == {"billing", "general", "technical"}
    assert all(labels.count(label) > 0.3 * len(labels) for label in set(labels))
