"""Augmentation: what is changed, what is kept, and that held-out pieces are held out."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from models.making.augment import KINDS, STEPS, Augmenter, change
from models.making.dataset import Example
from models.making.letters import mistype, shout, without_punctuation
from models.making.pieces import HELD_OUT_PIECES, TRAINING_PIECES, Filling, PiecesError, read_pieces
from models.making.wrapped import COPIES, ROWS, wrapped

TEXT = "The invoice (no. 4711) is wrong & I can't open it"
SMALL = """
[slots]
name = ["Ada"]
code = ["#~"]
[pieces]
greeting = ["Dear {{name}},"]
signature = ["Bye\\n{{name}}"]
message = ["first\\nsecond"]
quote = ["{{name}} wrote:\\n{{>message}}\\n\\n{{ticket}}"]
reference = ["code {{code}} and {{code}}"]
[[html]]
page = "<b>{{body}}</b>"
paragraph = "<p>{{line}}</p>"
newline = "<br>"
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "pieces.toml"
    file.write_text(SMALL, encoding="utf-8")
    return file


def test_pieces_go_around_the_text_in_the_order_of_the_steps(small: Path) -> None:
    text = change("help", ["html", "signature", "greeting"], read_pieces(small), random.Random(1))
    assert text == "<b><p>Dear Ada,</p>\n<p>help</p>\n<p>Bye<br>Ada</p></b>"


def test_a_piece_with_a_place_for_the_ticket_goes_around_it_and_messages_are_quoted(small: Path) -> None:
    assert change("help", ["quote"], read_pieces(small), random.Random(1)) == "Ada wrote:\n> first\n> second\n\nhelp"


def test_digits_are_made_afresh_each_time(small: Path) -> None:
    pieces = read_pieces(small)
    codes = {change("help", ["reference"], pieces, random.Random(seed)) for seed in range(50)}
    assert len(codes) > 40


def test_braces_in_a_text_are_the_text_s_own(small: Path) -> None:
    assert "{{name}} > {{ticket}}" in change("{{name}} > {{ticket}}", ["quote", "greeting"], read_pieces(small), random.Random(1))


def test_html_escapes_the_text(small: Path) -> None:
    assert Filling(read_pieces(small), random.Random(1)).html("a < b\n\n& c") == "<b><p>a &lt; b</p>\n<p>&amp; c</p></b>"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[slots]", "[slots", "cannot be read as TOML"),
        ("[slots]", "[words]\na = ['b']\n[slots]", "'words' is none of slots, pieces, html"),
        ('name = ["Ada"]', 'name = "Ada"', "slots.name: must be a list of strings"),
        ('name = ["Ada"]', "name = []", "slots.name: must be a list of strings"),
        ('name = ["Ada"]', 'name = ["{{code}} {{name}}"]', "slots.name: needs itself"),
        ("{{name}},", "{{nome}},", "pieces.greeting, number 1: {{nome}} is not in [slots]"),
        ("greeting =", "greetings =", "pieces.greetings: is none of greeting, signature"),
        ('message = ["first\\nsecond"]', "", "{{message}} is not in [slots]"),
        ("<b>{{body}}</b>", "<b></b>", "html 1: page: must have {{body}} once"),
        ('newline = "<br>"', "", "html 1: must have page, paragraph and newline"),
    ],
)
def test_bad_pieces_are_refused_with_their_place(small: Path, old: str, new: str, message: str) -> None:
    assert old in SMALL
    small.write_text(SMALL.replace(old, new), encoding="utf-8")
    with pytest.raises(PiecesError) as raised:
        read_pieces(small)
    assert message in str(raised.value)
    assert str(small) in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PiecesError, match="cannot be read as TOML"):
        read_pieces(tmp_path / "none.toml")


def test_unknown_kinds_and_kinds_without_pieces_are_refused(small: Path) -> None:
    with pytest.raises(PiecesError, match="'emails' is no kind of augmentation; there are email, html"):
        Augmenter({"emails": 1.0}, 0.5, read_pieces(small))
    with pytest.raises(PiecesError, match="form: there are no pieces of the kind 'form'"):
        Augmenter({"html": 1.0, "form": 1.0}, 0.5, read_pieces(small))


def test_the_built_in_pieces_have_something_for_every_kind() -> None:
    for file in (TRAINING_PIECES, HELD_OUT_PIECES):
        pieces = read_pieces(file)
        augmenter = Augmenter(dict.fromkeys(KINDS, 1.0), 1.0, pieces)
        generator = random.Random(1)
        for _ in range(300):
            assert "{{" not in augmenter(TEXT, generator)
        for step in STEPS:
            assert change("help", [step], pieces, random.Random(1))


def test_held_out_pieces_never_occur_in_training() -> None:
    training, held_out = read_pieces(TRAINING_PIECES), read_pieces(HELD_OUT_PIECES)

    def bare(text: str) -> str:
        return " ".join(text.lower().split())

    for kind, texts in held_out.texts.items():
        assert not {bare(text) for text in texts} & {bare(text) for text in training.texts[kind]}, kind
    assert not {page.page for page in held_out.pages} & {page.page for page in training.pages}
    for slot in ("first", "last", "company", "agent", "subject", "domain", "desk", "phone", "url"):
        assert not set(held_out.slots[slot]) & set(training.slots[slot]), slot
    assert sum(map(len, training.texts.values())) >= 300
    assert sum(map(len, held_out.texts.values())) >= 100


def test_the_same_seed_gives_the_same_texts_and_another_gives_others() -> None:
    augmenter = Augmenter(dict.fromkeys(KINDS, 1.0), 1.0, read_pieces(TRAINING_PIECES))

    def texts(seed: int) -> list[str]:
        generator = random.Random(seed)
        return [augmenter(TEXT, generator) for _ in range(20)]

    assert texts(1) == texts(1) != texts(2)


def test_the_chance_is_kept() -> None:
    augmenter = Augmenter({"email": 1.0}, 0.3, read_pieces(TRAINING_PIECES))
    generator = random.Random(1)
    changed = sum(augmenter(TEXT, generator) != TEXT for _ in range(2000)) / 2000
    assert 0.26 < changed < 0.34


def test_kinds_that_are_taken_more_often_occur_more_often() -> None:
    augmenter = Augmenter({"html": 9.0, "lowercase": 1.0}, 1.0, read_pieces(TRAINING_PIECES))
    generator = random.Random(1)
    kinds = Counter("<" in augmenter(TEXT, generator) for _ in range(1000))
    assert kinds[True] > 850


def test_shouting_and_lower_case_do_not_meet() -> None:
    augmenter = Augmenter({"shouting": 1.0, "lowercase": 1.0}, 1.0, read_pieces(TRAINING_PIECES))
    generator = random.Random(1)
    texts = {augmenter("It's wrong.", generator).rstrip(" !") for _ in range(100)}
    assert texts == {"IT'S WRONG.", "its wrong"}


def test_typing_errors_are_as_many_as_asked_for_and_numbers_stay() -> None:
    text = "the quick brown fox jumps over the lazy dog 4711 " * 200
    for share in (0.03, 0.06):
        letters = mistype(text, share, random.Random(1))
        assert letters.count("4711") == 200
        wrong = sum(a != b for a, b in zip(letters.split(), text.split(), strict=False))
        assert wrong > 0
        words = Counter(text.split())
        missed = sum(count for word, count in Counter(letters.split()).items() if word not in words)
        assert share * 0.6 < missed / (sum(map(str.isalpha, text))) < share * 1.1
    assert mistype(text, 0.0, random.Random(1)) == text


def test_no_letter_s_change_leaves_a_blank_text() -> None:
    for seed in range(50):
        assert mistype("a", 1.0, random.Random(seed)).strip()
    assert without_punctuation("?!") == "?!"
    assert shout("ok", random.Random(1)).startswith("OK")


def test_punctuation_goes_where_it_holds_nothing_together() -> None:
    assert without_punctuation("It's 49.90, isn't it? See https://x.example/a-b (now)!") == (
        "its 49.90 isnt it see https://x.example/a-b now"
    )


def test_the_rows_that_are_measured_keep_labels_and_use_the_given_pieces() -> None:
    pieces = read_pieces(HELD_OUT_PIECES)
    tickets = [Example("payment failed", "billing"), Example("app crashed", "technical")]
    for name, steps in ROWS:
        assert set(steps) <= set(STEPS), name
        rows = wrapped(tickets, steps, pieces, 1)
        assert [row.label for row in rows] == ["billing"] * COPIES + ["technical"] * COPIES
        assert rows == wrapped(tickets, steps, pieces, 1)
        if not steps[0].startswith(("typos", "shouting", "lowercase")):
            assert all(
                ticket.text in row.text for ticket, row in zip([t for t in tickets for _ in range(COPIES)], rows, strict=True)
            )


def test_the_pieces_in_the_documentation_can_be_used(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    file = tmp_path / "pieces.toml"
    file.write_text(example, encoding="utf-8")
    augmenter = Augmenter({"email": 1.0, "html": 1.0}, 1.0, read_pieces(file))
    generator = random.Random(1)
    texts = [augmenter("help", generator) for _ in range(50)]
    assert all("help" in text and text != "help" and "{{" not in text for text in texts)


def test_every_kind_is_documented_and_no_other_is() -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    section = page.partition("| kind | changes |\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(KINDS)
