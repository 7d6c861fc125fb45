from __future__ import annotations

from pathlib import Path

import pytest

from models.tables import BadRow, Row, TableError, read_table


def rows(path: Path, content: str | bytes, label_column: str | None = None) -> list[Row | BadRow]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_table(path, label_column=label_column))


def texts(read: list[Row | BadRow]) -> list[str]:
    return [row.text if isinstance(row, Row) else f"{row.line}: {row.reason}" for row in read]


def test_plain_text_is_one_text_a_line(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.txt", "\ufeffone\r\n\ntwo")) == ["one", "2: 'text' is blank", "two"]


def test_csv_keeps_quotes_commas_and_line_breaks(tmp_path: Path) -> None:
    read = rows(tmp_path / "t.csv", 'id,text,label\n1,"a, ""b""\nc",billing\n2,d,general\n', "label")
    assert [(row.text, row.label) for row in read if isinstance(row, Row)] == [('a, "b"\nc', "billing"), ("d", "general")]


def test_tsv_is_split_at_tabs(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.tsv", "text\tlabel\na, b\tx\n")) == ["a, b"]


def test_bad_json_lines_are_named_with_line_and_reason_and_the_others_are_read(tmp_path: Path) -> None:
    content = '{"text": "a", "label": "x"}\n{\n[1]\n{"text": 3, "label": "x"}\n{"label": "x"}\n'
    content += '{"text": "b"}\n{"text": "c", "label": " "}\n'
    read = texts(rows(tmp_path / "t.jsonl", content, "label"))
    assert read[0] == "a"
    assert read[1].startswith("2: not JSON")
    assert read[2:] == [
        "3: not a JSON object",
        "4: 'text' is not a string",
        "5: no 'text'",
        "6: no 'label'",
        "7: 'label' is blank",
    ]


def test_bytes_that_are_not_utf_8_spoil_their_own_row_only(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.txt", b"caf\xe9\nfine\n")) == ["1: 'text' is not valid UTF-8", "fine"]
    assert texts(rows(tmp_path / "t.csv", b"text\ncaf\xe9\nfine\n")) == ["2: 'text' is not valid UTF-8", "fine"]
    read = texts(rows(tmp_path / "t.jsonl", b'{"text": "caf\xe9"}\n{"text": "fine"}\n'))
    assert read[0].startswith("1: not JSON")
    assert read[1] == "fine"


def test_csv_rows_with_too_many_or_too_few_fields_are_bad(tmp_path: Path) -> None:
    read = texts(rows(tmp_path / "t.csv", "label,text\nx,a\nx\nx,b,c\n"))
    assert read == ["a", "3: no 'text'", "4: more fields than the header has columns"]


def test_an_open_quote_says_that_the_rest_was_not_read(tmp_path: Path) -> None:
    read = texts(rows(tmp_path / "t.csv", 'text\na\n"b\nc\n'))
    assert read[0] == "a"
    assert "the rest of the file was not read" in read[-1]


def test_a_missing_column_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no column 'text'; it has 'body', 'label'"):
        rows(tmp_path / "t.csv", "body,label\na,x\n")
    with pytest.raises(TableError, match="it has none"):
        rows(tmp_path / "t.csv", "")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"none\.csv: No such file"):
        list(read_table(tmp_path / "none.csv"))
    with pytest.raises(TableError, match="Is a directory"):
        list(read_table(tmp_path))


def test_labels_cannot_come_from_plain_text(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="a plain text file has no labels"):
        rows(tmp_path / "t.txt", "a\n", "label")


def test_a_very_long_csv_field_is_read(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.csv", "text\n" + "a" * 500_000 + "\n")) == ["a" * 500_000]
