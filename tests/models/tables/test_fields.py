"""Labels as files have them: one, several in one column or a column each, and numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.tables import BadRow, Label, LabelKind, TableFormat, read_table
from models.tables.fields import LabelFault, read_label

SEVERAL = TableFormat(label_columns=("billing", "spam"))


def labels(path: Path, content: str, kind: LabelKind, table: TableFormat | None = None) -> list[Label | str | None]:
    path.write_text(content, encoding="utf-8")
    read = read_table(path, table, labelled=True, labels=kind)
    return [f"{row.line}: {row.reason}" if isinstance(row, BadRow) else row.label for row in read]


def test_several_labels_in_one_column_of_csv(tmp_path: Path) -> None:
    content = 'text,label\na,billing | spam\nb,\nc,"[""x|y"", ""z""]"\nd,spam|spam|\ne,[billing\n'
    assert labels(tmp_path / "t.csv", content, LabelKind.SEVERAL) == [
        ("billing", "spam"),
        (),
        ("x|y", "z"),
        ("spam",),
        "6: 'label' begins like a JSON list and is none",
    ]


def test_several_labels_in_json(tmp_path: Path) -> None:
    content = '{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": "x|y"}\n{"text": "c", "label": []}\n'
    content += '{"text": "d", "label": [1]}\n{"text": "e", "label": 3}\n{"text": "f", "label": null}\n'
    content += '{"text": "g", "label": [" "]}\n'
    assert labels(tmp_path / "t.jsonl", content, LabelKind.SEVERAL) == [
        ("x", "y"),
        ("x", "y"),
        (),
        "4: an element of the list: 'label' is not a string but a number",
        "5: 'label' is neither a string nor a list, but a number",
        "6: no 'label'",
        "7: an element of the list: 'label' is blank",
    ]


def test_a_column_of_0_and_1_for_each_label(tmp_path: Path) -> None:
    content = "text,Billing,spam,other\na,1,0,9\nb,0.0,1.0,9\nc,true,,9\nd,1\n"
    assert labels(tmp_path / "t.csv", content, LabelKind.SEVERAL, SEVERAL) == [
        ("billing",),
        ("spam",),
        "4: 'spam' is neither 0 nor 1",
        "5: no 'spam'",
    ]
    content = '{"text": "a", "billing": true, "spam": 0}\n{"text": "b", "billing": 2, "spam": 0}\n{"text": "c", "billing": 1}\n'
    found = labels(tmp_path / "t.jsonl", content, LabelKind.SEVERAL, SEVERAL)
    assert found[:2] == [("billing",), "2: 'billing' is neither 0 nor 1"]
    assert found[2] == "3: no 'spam'; it has 'text', 'billing'; --label-columns names the right one"


def test_numbers(tmp_path: Path) -> None:
    content = "text,label\na,3.5\nb, -1e2\nc,many\nd,nan\ne,\n"
    fault = "'label' is not a number"
    assert labels(tmp_path / "t.csv", content, LabelKind.NUMBER) == [3.5, -100.0, f"4: {fault}", f"5: {fault}", f"6: {fault}"]
    content = '{"text": "a", "label": 4}\n{"text": "b", "label": true}\n{"text": "c", "label": [1]}\n'
    assert labels(tmp_path / "t.jsonl", content, LabelKind.NUMBER) == [4.0, 1.0, f"3: {fault}"]


@pytest.mark.parametrize("kind", LabelKind)
def test_bytes_that_are_not_of_the_encoding_are_a_fault_of_the_row(kind: LabelKind) -> None:
    with pytest.raises(LabelFault, match=r"not valid UTF-8|not a number"):
        read_label("caf\udce9", "label", kind, "UTF-8")
