from pathlib import Path

import pytest

from models.making.dataset import DatasetError, Example, counts, fingerprint, label_names, read_examples, split

MANY = [Example(f"text {number}", "abc"[number % 3]) for number in range(90)]


def test_every_bad_row_is_named_with_file_line_and_reason(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.jsonl"
    good.write_text("text,label\na,x\n")
    bad.write_text('{"text": "b"}\n{"text": "", "label": "x"}\n')
    with pytest.raises(DatasetError, match=r"2 of 3 rows cannot be used") as error:
        read_examples([(good, 1.0), (bad, 1.0)])
    assert f"{bad}:1: no 'label'" in str(error.value)
    assert f"{bad}:2: 'text' is blank" in str(error.value)


def test_a_long_list_of_bad_rows_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text("{\n" * 50)
    with pytest.raises(DatasetError, match=r"\.\.\. and 30 more"):
        read_examples([(file, 1.0)])


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text("")
    with pytest.raises(DatasetError, match="no rows"):
        read_examples([(file, 1.0)])


def test_a_split_is_stratified_seeded_and_loses_nothing() -> None:
    kept, held = split(MANY, 0.2, seed=1)
    assert counts(held) == {"a": 6, "b": 6, "c": 6}
    assert sorted(kept + held, key=lambda e: int(e.text[5:])) == MANY
    assert split(MANY, 0.2, seed=1) == (kept, held)
    assert split(MANY, 0.2, seed=2) != (kept, held)


def test_a_label_with_one_example_cannot_be_split() -> None:
    with pytest.raises(DatasetError, match="'z' has one example only"):
        split([*MANY, Example("odd", "z")], 0.1, seed=1)


def test_one_label_is_no_classification() -> None:
    with pytest.raises(DatasetError, match="two labels or more"):
        label_names([Example("a", "x"), Example("b", "x")])


def test_the_fingerprint_sees_texts_labels_weights_and_order() -> None:
    seen = {
        fingerprint(examples)
        for examples in (
            [Example("a", "x")],
            [Example("b", "x")],
            [Example("a", "y")],
            [Example("a", "x", 2.0)],
            [Example("a", "x"), Example("b", "x")],
            [Example("b", "x"), Example("a", "x")],
        )
    }
    assert len(seen) == 6


SEVERAL = [Example(f"text {number}", (("a",), ("a", "rare"), ("b",), ())[number % 4]) for number in range(80)]


def test_a_split_of_several_labels_holds_a_share_of_each_out_and_of_texts_without_any() -> None:
    kept, held = split(SEVERAL, 0.2, seed=1)
    assert counts(held) == {"a": 8, "b": 4, "rare": 4}
    assert sum(not example.label for example in held) == 4
    assert sorted(kept + held, key=lambda e: int(e.text[5:])) == SEVERAL
    with pytest.raises(DatasetError, match="the texts without a label"):
        split([*SEVERAL[:3] * 2, Example("x", ())], 0.2, seed=1)


def test_a_split_of_numbers_holds_a_share_of_all_out() -> None:
    numbers = [Example(f"text {number}", number / 7) for number in range(50)]
    kept, held = split(numbers, 0.2, seed=1)
    assert (len(kept), len(held)) == (40, 10)
    assert counts(held) == {"": 10}


def test_the_labels_of_a_model_by_its_problem_type() -> None:
    assert label_names(SEVERAL, "multi-label") == ["a", "b", "rare"]
    assert label_names([Example("x", 1.0)], "regression", "stars") == ["stars"]
    with pytest.raises(DatasetError, match="a multi-label classifier needs two labels or more; the data has 0"):
        label_names([Example("x", ())], "multi-label")


def test_the_fingerprint_tells_several_labels_and_numbers_apart() -> None:
    labels = (("x", "y"), ("y", "x"), ("x",), (), "x", 1.0, 2.0)
    assert len({fingerprint([Example("a", label)]) for label in labels}) == len(labels)
