from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models.making
from drift import Baseline, Layout, Monitor, Observations, Profile, ProfileError, State, learn, learn_profile
from drift.fitting import logistic
from drift.profile import edges
from models.classifier import Classifier
from models.making.dataset import read_examples
from models.making.profile import observe

VOCABULARY = 200
LABELS = ("billing", "general", "technical")
START, END = 1, 2


def texts(
    number: int, seed: int, *, first_id: int = 10, residual: float = 0.1
) -> tuple[Observations, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Texts over 40 ids from `first_id` on, early ones more often; their vectors lie on 3 directions, but for `residual`."""
    rng = np.random.default_rng(seed)
    ids = [(START, *(first_id + rng.geometric(0.1, rng.integers(3, 12)) % 40).tolist(), END) for _ in range(number)]
    labels = rng.integers(3, size=number)
    first = np.zeros((number, 8))
    first[np.arange(number), labels] = 5
    first += residual * rng.normal(size=first.shape)
    true = np.where(rng.random(number) < 0.1, (labels + 1) % 3, labels)
    return Observations(ids, labels, rng.beta(20, 1, number), first.astype(np.float32), np.zeros(number)), true


def profile(*, with_vectors: bool = True) -> Profile:
    training, held_out = texts(800, 0)[0], texts(500, 1)
    if not with_vectors:
        training, held_out = replace(training, first=None), (replace(held_out[0], first=None), held_out[1])
    odd = texts(200, 2, first_id=100)
    harder = [(odd[0] if with_vectors else replace(odd[0], first=None), (odd[0].labels + 1) % 3)]
    return learn_profile(training, *held_out, labels=LABELS, vocabulary=VOCABULARY, specials=(START, END), harder=harder)


PROFILE = profile()


def test_texts_of_other_words_are_novel_rare_of_unknown_pairs_and_probably_wrong() -> None:
    usual, other = PROFILE.scores(texts(300, 3)[0]), PROFILE.scores(texts(300, 4, first_id=100)[0])
    for name in ("novelty", "rare", "pairs", "combined", "error"):
        assert other[name].mean() > usual[name].mean() + 3 * usual[name].std(), name
    assert 0.05 < usual["error"].mean() < 0.2
    assert other["error"].mean() > 0.8


def test_a_vector_outside_the_usual_directions_has_a_residual() -> None:
    # As many components as dimensions leave nothing: here, those of 3 directions do.
    narrow = replace(PROFILE, components=PROFILE.components[:3])
    usual, other = (narrow.scores(texts(300, 3, residual=share)[0])["residual"] for share in (0.1, 0.5))
    assert other.mean() > 3 * usual.mean()


def test_novelty_is_the_mean_rarity_in_bits_of_the_texts_own_pieces() -> None:
    flat = [token for ids in texts(800, 0)[0].ids for token in ids if token > END]
    share = (flat.count(12) + 1) / (len(flat) + VOCABULARY)
    one = Observations([(START, 12, 12, END)], np.array([0]), np.array([0.9]), np.zeros((1, 8)))
    assert PROFILE.scores(one)["novelty"][0] == pytest.approx(-np.log2(share), abs=1 / 24)
    assert PROFILE.scores(one)["length"][0] == 4


def test_pieces_and_pairs_of_few_texts_count_as_unseen() -> None:
    training, (held_out, true) = texts(800, 0)[0], texts(500, 1)
    ids = [*training.ids[:-4], *[(START, 150, 151, END)] * 4]
    ids[0] = (START, *([152, 153] * 30), END)  # often, but in one text
    known = learn_profile(replace(training, ids=ids), held_out, true, labels=LABELS, vocabulary=VOCABULARY, specials=(START, END))
    assert known.rarity[150] == known.rarity[199], "4 places"
    assert known.rarity[152] < known.rarity[199]
    few = Observations([(150, 151), (152, 153), (198, 199)], np.zeros(3, np.int64), np.full(3, 0.9))
    assert known.scores(few)["pairs"].tolist() == [0, 1, 1]


def test_without_vectors_there_is_no_residual_and_all_else_works() -> None:
    plain = profile(with_vectors=False)
    values = plain.channels(replace(texts(50, 5)[0], first=None))
    assert "residual" not in values
    assert "residual" not in {channel.name for channel in plain.layout.channels}
    assert plain.layout.count(values).sum() > 0
    # A profile with components reads texts without vectors, too.
    assert "residual" not in PROFILE.channels(replace(texts(50, 5)[0], first=None))


def test_the_order_of_texts_and_their_company_do_not_change_a_text() -> None:
    many = texts(40, 6)[0]
    together = PROFILE.scores(many)
    for index in (0, 17, 39):
        assert many.first is not None
        one = Observations([many.ids[index]], many.labels[[index]], many.confidence[[index]], many.first[[index]])
        for name, values in PROFILE.scores(one).items():
            assert values[0] == pytest.approx(together[name][index], rel=1e-12), name


def test_a_profile_comes_back_from_its_file_to_the_last_digit_of_a_bin() -> None:
    again = Profile.from_bytes(PROFILE.to_bytes())
    sample = texts(200, 7)[0]
    assert again.layout.fingerprint == PROFILE.layout.fingerprint
    assert again.layout.count(again.channels(sample)).tolist() == PROFILE.layout.count(PROFILE.channels(sample)).tolist()
    assert again.confusion.tolist() == PROFILE.confusion.tolist()
    assert len(PROFILE.to_bytes()) < 70_000


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"known": ""},
        {"weights": [1.0]},
        {"rarity": 3},
        {"components": "AAAA"},
        {"channels": [{}]},
        {"ranks": []},
        {"labels": []},
        {"rarity": ""},
        {"specials": [VOCABULARY]},
        {"levels": [0.5]},
        {"levels": PROFILE.levels[::-1].tolist()},
        {"ranks": {}},
        {"confusion": [[1]]},
        {"rare_from": float("nan")},
        {"confusion": (-PROFILE.confusion).tolist()},
        {"ranks": {name: [float("nan")] * 64 for name in PROFILE.ranks}},
        {"ranks": {name: ranks[::-1].tolist() for name, ranks in PROFILE.ranks.items()}},
        {"center": base64.b64encode(np.full(8, np.nan, "<f2").tobytes()).decode()},
    ],
)
def test_files_that_are_no_profile_are_refused(change: dict[str, object]) -> None:
    content = json.loads(PROFILE.to_bytes())
    with pytest.raises(ProfileError, match="not a profile"):
        Profile.from_bytes(json.dumps(content | change).encode())


@pytest.mark.parametrize("content", [b"no", b"", b"null", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_bytes_that_are_no_profile_are_refused(content: bytes) -> None:
    with pytest.raises(ProfileError, match="not a profile"):
        Profile.from_bytes(content)


def test_channels_that_texts_have_no_values_for_are_noticed() -> None:
    PROFILE.check_channels()
    profile(with_vectors=False).check_channels()
    for other in (
        replace(PROFILE, labels=("billing", "general", "other")),
        replace(PROFILE, layout=Layout(PROFILE.layout.channels[1:])),
    ):
        with pytest.raises(ProfileError, match="its channels are others"):
            other.check_channels()


def test_ids_and_vectors_that_do_not_fit_are_refused() -> None:
    one = Observations([(START, VOCABULARY)], np.array([0]), np.array([0.9]))
    with pytest.raises(ProfileError, match="not below 200"):
        PROFILE.scores(one)
    with pytest.raises(ProfileError, match="do not fit to 8 dimensions"):
        PROFILE.scores(Observations([(START, 12)], np.array([0]), np.array([0.9]), np.zeros((1, 7))))
    with pytest.raises(ProfileError, match="100 training texts"):
        learn_profile(texts(99, 0)[0], *texts(500, 1), labels=LABELS, vocabulary=VOCABULARY)
    with pytest.raises(ProfileError, match="not below 20"):
        learn_profile(texts(800, 0)[0], *texts(500, 1), labels=LABELS, vocabulary=20)


def test_edges_rise_and_leave_what_most_texts_have_in_the_lowest_bin() -> None:
    found = edges(np.array([0.0] * 90 + [0.5] * 10))
    assert list(found) == sorted(set(found))
    assert found[0] > 0
    assert len(edges(np.zeros(100))) >= 1


def test_logistic_regression_finds_the_weights_that_made_the_hits() -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([np.ones(20_000), rng.normal(size=20_000)], axis=1)
    hits = (rng.random(20_000) < 1 / (1 + np.exp(-(rows @ (-1.0, 2.0))))).astype(np.float64)
    assert logistic(rows, hits) == pytest.approx([-1, 2], abs=0.08)


def test_profile_baseline_and_monitor_work_together() -> None:
    def block(seed: int, share: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        counts = PROFILE.layout.count(PROFILE.channels(texts(round(16 * (1 - share)), seed)[0]))
        return counts + PROFILE.layout.count(PROFILE.channels(texts(round(16 * share), seed, first_id=100)[0])) if share else counts

    normal: Baseline = learn(PROFILE.layout, ((0, block(seed, 0)) for seed in range(100, 400)))
    monitor = Monitor(PROFILE.layout, normal)
    for seed in range(400, 430):
        monitor.advance(block(seed, 0))
    assert {verdict.state for verdict in monitor.verdicts().values()} == {State.OK, State.LEARNING}
    for seed in range(430, 440):
        monitor.advance(block(seed, 0.25))
    assert monitor.verdicts()["input"].state is State.DRIFT


def test_a_twentieth_of_held_out_texts_is_unusual_and_most_texts_of_other_words_are() -> None:
    def share(observed: Observations) -> float:
        found = PROFILE.unusual_share(PROFILE.layout.count(PROFILE.channels(observed)))
        assert found is not None
        return found

    assert share(texts(500, 1)[0]) == pytest.approx(0.05, abs=0.01)
    assert share(texts(300, 4, first_id=100)[0]) > 0.9
    assert PROFILE.unusual_share(np.zeros(PROFILE.layout.width, dtype=np.int64)) is None


def test_a_twentieth_of_tickets_like_the_held_out_ones_is_unusual_to_the_built_in_model(classifier: Classifier) -> None:
    assert classifier.profile is not None
    shipped = Profile.from_bytes(classifier.profile)
    tickets = read_examples([(Path(models.making.__file__).parent / "tickets" / "dev.jsonl", 1.0)])
    share = shipped.unusual_share(shipped.layout.count(shipped.channels(observe(classifier, [row.text for row in tickets]))))
    assert share is not None
    assert 0.01 < share < 0.15
