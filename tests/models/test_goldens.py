"""Stored graphs of each family against the logits that torch gave: what the build tests show with torch, shown without it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.engines import check_signature, open_session, packed_logits
from models.passes import INPUTS
from models.types import Encoding

GOLDENS = Path(__file__).parent / "goldens"
FAMILIES = ("bert", "distilbert", "roberta", "albert", "modernbert", "deberta-v2")


class Golden:
    """A graph, texts, the logits that torch gave for each, and those that the graph gives for each alone."""

    def __init__(self, family: str) -> None:
        values = json.loads((GOLDENS / f"{family}.json").read_text(encoding="utf-8"))
        self.session = open_session((GOLDENS / f"{family}.onnx").read_bytes(), ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
        self.texts = [Encoding(tuple(ids), False) for ids in values["ids"]]
        self.expected: npt.NDArray[np.float32] = np.array(values["logits"], dtype=np.float32)
        self.alone = np.concatenate([packed_logits(self.session, [text]) for text in self.texts])


@pytest.fixture(scope="module", params=FAMILIES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def test_a_stored_graph_takes_what_a_pass_feeds_it(golden: Golden) -> None:
    check_signature(golden.session, tuple(INPUTS), golden.expected.shape[1])


def test_each_text_alone_has_torch_s_logits(golden: Golden) -> None:
    assert np.ptp(golden.expected, axis=0).min() > 0.1  # the texts do differ
    assert np.abs(golden.alone - golden.expected).max() < 1e-4


@pytest.mark.parametrize("seed", range(4))
def test_a_mixed_batch_has_torch_s_logits_in_its_own_order(golden: Golden, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(golden.texts))
    logits = packed_logits(golden.session, [golden.texts[index] for index in order])
    assert np.abs(logits - golden.expected[order]).max() < 1e-4


@settings(deadline=None)
@given(st.data())
def test_no_batch_mate_moves_a_bit(golden: Golden, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(golden.texts) - 1), min_size=1, max_size=32))
    logits = packed_logits(golden.session, [golden.texts[index] for index in chosen])
    assert np.array_equal(logits, golden.alone[chosen])
