from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from models.tables import BadRow, Kind, Row, TableError, TableFormat, read_table
from models.tables.files import LONGEST_LINE


def rows(
    path: Path, content: str | bytes, table: TableFormat | None = None, *, labelled: bool = False, said: list[str] | None = None
) -> list[Row | BadRow]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_table(path, table, labelled=labelled, notice=(said if said is not None else []).append))


def texts(read: list[Row | BadRow]) -> list[str]:
    return [row.text if isinstance(row, Row) else f"{row.line}: {row.reason}" for row in read]


def test_plain_text_is_one_text_a_line(tmp_path: Path) -> None:
    content = "\ufeffone\r\n\n \ntwo\rthree\n\n\n"
    assert texts(rows(tmp_path / "t.txt", content)) == ["one", "2: 'text' is blank", "3: 'text' is blank", "two", "three"]


def test_csv_keeps_quotes_commas_and_line_breaks(tmp_path: Path) -> None:
    read = rows(tmp_path / "t.csv", 'id,text,label\n1,"a, ""b""\nc",billing\n2,d,general\n', labelled=True)
    assert [(row.text, row.label) for row in read if isinstance(row, Row)] == [('a, "b"\nc', "billing"), ("d", "general")]


def test_tsv_is_split_at_tabs(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.tsv", "text\tlabel\na, b\tx\n")) == ["a, b"]


def test_bad_json_lines_are_named_with_line_and_reason_and_the_others_are_read(tmp_path: Path) -> None:
    content = '{"text": "a", "label": "x"}\n{\n[1]\n{"text": 3, "label": "x"}\n{"label": "x"}\n'
    content += '{"text": "b"}\n{"text": "c", "label": " "}\n'
    read = texts(rows(tmp_path / "t.jsonl", content, labelled=True))
    assert read[0] == "a"
    assert read[1].startswith("2: not JSON")
    assert read[2:] == [
        "3: not a JSON object",
        "4: 'text' is not a string but a number",
        "5: no 'text'; it has 'label'; --text-column names the right one",
        "6: no 'label'; it has 'text'; --label-column names the right one",
        "7: 'label' is blank",
    ]


def test_bytes_that_are_not_utf_8_spoil_their_own_row_only(tmp_path: Path) -> None:
    fault = "not valid UTF-8; --encoding names another one, such as windows-1252"
    assert texts(rows(tmp_path / "t.txt", b"caf\xe9\nfine\n")) == [f"1: 'text' is {fault}", "fine"]
    assert texts(rows(tmp_path / "t.csv", b"text\ncaf\xe9\nfine\n")) == [f"2: 'text' is {fault}", "fine"]
    read = texts(rows(tmp_path / "t.jsonl", b'{"text": "caf\xe9"}\n{"text": "fine"}\n'))
    assert read == [f"1: not JSON: {fault}", "fine"]
    # A JSON document is whole or nothing.
    with pytest.raises(TableError, match=f"t.json: {fault}"):
        rows(tmp_path / "t.json", b'["caf\xe9", "fine"]')


def test_csv_rows_with_too_many_or_too_few_fields_are_bad(tmp_path: Path) -> None:
    read = texts(rows(tmp_path / "t.csv", "label,text\nx,a\nx\nx,b,c\n"))
    assert read == ["a", "3: no 'text'", "4: more fields than the header has columns"]


def test_an_open_quote_says_that_the_rest_was_not_read(tmp_path: Path) -> None:
    read = texts(rows(tmp_path / "t.csv", 'text\na\n"b\nc\n'))
    assert read == ["a", "3: not CSV: unexpected end of data; the rest of the file was not read"]


def test_a_missing_column_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no column 'text'; it has 'body', 'label'"):
        rows(tmp_path / "t.csv", "body,label\na,x\n")
    with pytest.raises(TableError, match=r"t\.csv: is empty; the first line of CSV names the columns"):
        rows(tmp_path / "t.csv", "")
    assert rows(tmp_path / "t.csv", "text,label\n", labelled=True) == []


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"none\.csv: No such file"):
        list(read_table(tmp_path / "none.csv"))
    with pytest.raises(TableError, match="Is a directory"):
        list(read_table(tmp_path))


def test_labels_cannot_come_from_plain_text(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="lines of plain text have no labels; if it is something else, --input-format csv"):
        rows(tmp_path / "t.txt", "a\n", labelled=True)


def test_a_very_long_csv_field_is_read(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.csv", "text\n" + "a" * 500_000 + "\n")) == ["a" * 500_000]


# --- columns


@pytest.mark.parametrize("name", ["Text", "TEXT", " text ", "Text "])
def test_a_column_that_differs_in_case_and_blanks_only_is_found_and_said(tmp_path: Path, name: str) -> None:
    said: list[str] = []
    assert texts(rows(tmp_path / "t.csv", f"id,{name}\n1,a\n", said=said)) == ["a"]
    assert said == [f"{tmp_path / 't.csv'}: column {name!r} is taken for 'text'"]
    assert texts(rows(tmp_path / "t.jsonl", json.dumps({name: "a"}))) == ["a"]


def test_the_very_name_wins_and_several_that_fit_are_an_error(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.csv", "Text,text\na,b\n")) == ["b"]
    assert texts(rows(tmp_path / "t.jsonl", '{"Text": "a", "text": "b"}')) == ["b"]
    for header in ("text,text", "Text,TEXT"):
        with pytest.raises(TableError, match=r"2 columns fit 'text': .*; --text-column names another one"):
            rows(tmp_path / "t.csv", f"{header}\na,b\n")
    assert "2 keys fit 'text'" in texts(rows(tmp_path / "t.jsonl", '{"Text": "a", "TEXT": "b"}'))[0]
    # Columns that nobody asks for may have any name, or none.
    assert texts(rows(tmp_path / "t.csv", "x,x,,text\n1,2,3,a\n")) == ["a"]


def test_a_column_that_is_not_there_suggests_the_option(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no column 'text'; it has 'Body', 'Label'; --text-column names the right one$"):
        rows(tmp_path / "t.csv", "Body,Label\na,x\n")
    with pytest.raises(TableError, match=r"no column 'label'; .*; --label-column names the right one$"):
        rows(tmp_path / "t.csv", "text,kind\na,x\n", labelled=True)
    with pytest.raises(
        TableError, match=r"it has 'id\^text'; --text-column names the right one, --delimiter what separates columns"
    ):
        rows(tmp_path / "t.csv", "id^text\n1^a\n")
    with pytest.raises(TableError, match="no column 'text' in a header that is not valid UTF-8; --encoding"):
        rows(tmp_path / "t.csv", b"caf\xe9,label\na,x\n")
    with pytest.raises(TableError, match="looks like JSON and is read as CSV; --input-format"):
        rows(tmp_path / "t.csv", '{"body": "a"}\n')
    many = ",".join(f"column {number}" for number in range(1000))
    with pytest.raises(TableError, match="'column 11', 988 more; --text-column"):
        rows(tmp_path / "t.csv", f"{many}\n1\n")


def test_named_columns_are_used(tmp_path: Path) -> None:
    table = TableFormat(text_column="body", label_column="kind")
    (row,) = rows(tmp_path / "t.csv", "text,body,label,kind\na,b,c,d\n", table, labelled=True)
    assert isinstance(row, Row)
    assert (row.text, row.label) == ("b", "d")


# --- CSV


@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolon"), ("\t", "tab"), ("|", "pipe")])
def test_another_delimiter_is_recognised_and_said(tmp_path: Path, delimiter: str, word: str) -> None:
    said: list[str] = []
    content = f'"id"{delimiter}text{delimiter}label\n1{delimiter}"a, {delimiter} b"{delimiter}x\n'
    assert texts(rows(tmp_path / "t.csv", content, said=said)) == [f"a, {delimiter} b"]
    assert said == [f"{tmp_path / 't.csv'}: fields are separated by {word}s"]


def test_the_usual_delimiter_wins_where_it_has_the_columns(tmp_path: Path) -> None:
    said: list[str] = []
    assert texts(rows(tmp_path / "t.csv", "a;text;b,text\n1;2;3,4\n", said=said)) == ["4"]
    assert texts(rows(tmp_path / "t.tsv", "a;b\ttext\n1;2\t3\n", said=said)) == ["3"]
    assert said == []


def test_a_delimiter_that_is_named_is_the_only_one(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.csv", "id^text\n1^a;b\n", TableFormat(delimiter="^"))) == ["a;b"]
    with pytest.raises(TableError, match="it has 'id;text'"):
        rows(tmp_path / "t.csv", "id;text\n1;a\n", TableFormat(delimiter=","))
    # It says as well that the file is CSV, where its name says nothing.
    assert texts(rows(tmp_path / "t.txt", "id;text\n1;a\n", TableFormat(delimiter=";"))) == ["a"]
    for name, table in (
        ("t.jsonl", TableFormat(delimiter=";")),
        ("t.json.gz", TableFormat(delimiter=";")),
        ("t.csv", TableFormat(Kind.LINES, ";")),
    ):
        with pytest.raises(TableError, match="--delimiter is for CSV, and this is read as "):
            rows(tmp_path / name, gzip.compress(b"[]") if name.endswith("gz") else "{}\n", table)


def test_excels_separator_line_is_not_the_header(tmp_path: Path) -> None:
    read = rows(tmp_path / "t.csv", "\ufeffsep=;\r\nid;text\r\n1;a\r\n2\r\n")
    assert texts(read) == ["a", "4: no 'text'"]
    assert read[0] == Row(str(tmp_path / "t.csv"), 3, "a")


def test_a_record_of_several_lines_is_reported_by_its_first(tmp_path: Path) -> None:
    content = '\n"te\nxt",text\n\n1,"a\nb\nc"\n2,\n"3\n\n",d,e\n4,"f\n"\n5,g\n'
    read = rows(tmp_path / "t.csv", content)
    assert [row.line for row in read] == [5, 8, 9, 12, 14]
    assert texts(read) == ["a\nb\nc", "8: 'text' is blank", "9: more fields than the header has columns", "f\n", "g"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_is_one(tmp_path: Path, end: str) -> None:
    assert texts(rows(tmp_path / "t.csv", end.join(["id,text", "1,a", "", "2,b", "", ""]))) == ["a", "b"]
    assert texts(rows(tmp_path / "t.jsonl", end.join(['{"text": "a"}', "", '{"text": "b"}', ""]))) == ["a", "b"]
    assert texts(rows(tmp_path / "t.txt", end.join(["a", "b", ""]))) == ["a", "b"]


def test_marks_in_the_middle_of_a_file_that_was_put_together_are_dropped(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.jsonl", '\ufeff{"text": "a"}\n\ufeff{"text": "b"}\n')) == ["a", "b"]
    assert texts(rows(tmp_path / "t.csv", "\ufefftext\na\n\ufeffb\n")) == ["a", "b"]
    assert texts(rows(tmp_path / "t.txt", "\ufeffa\n\ufeffb\n\ufeff")) == ["a", "b"]
    assert texts(rows(tmp_path / "t.json", '\ufeff["a"]')) == ["a"]


def test_a_single_zero_is_a_character_like_others(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.csv", "text\na long enough\0text\n")) == ["a long enough\0text"]
    assert texts(rows(tmp_path / "t.txt", "a long enough\0text\n")) == ["a long enough\0text"]


def test_a_line_without_end_costs_itself_only_and_no_more_memory_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LONGEST_LINE >= 1 << 24
    monkeypatch.setattr("models.tables.files.LONGEST_LINE", 1000)
    long = "x" * 2500
    assert [line.partition(" of ")[0] for line in texts(rows(tmp_path / "t.txt", f"a\n{long}\nb\n"))] == ["a", "2: a line", "b"]
    read = texts(rows(tmp_path / "t.jsonl", f'{{"text": "a"}}\n{{"text": "{long}"}}\n{{"text": "b"}}\n'))
    assert [line.partition(" of ")[0] for line in read] == ["a", "2: a line", "b"]
    read = texts(rows(tmp_path / "t.csv", f"text\na\n{long}\nb\n"))
    assert read[0] == "a"
    assert read[1].startswith("3: not CSV: a line of over ")
    assert read[1].endswith("the rest of the file was not read")
    assert len(read) == 2


# --- JSON


def test_a_json_list_of_strings_and_of_objects_has_a_row_an_element(tmp_path: Path) -> None:
    content = json.dumps(["a", {"text": "b"}, 3, {"Text": "c"}, [], None, {"text": {"x": 1}}], indent=2)
    read = rows(tmp_path / "t.json", content)
    assert [row.line for row in read] == [1, 2, 3, 4, 5, 6, 7]
    assert texts(read) == [
        "a",
        "b",
        "3: not a JSON object",
        "c",
        "5: not a JSON object",
        "6: not a JSON object",
        "7: 'text' is not a string but an object",
    ]
    (row, bad) = rows(tmp_path / "l.json", '[{"text": "a", "label": " x "}, "b"]', labelled=True)
    assert row == Row(str(tmp_path / "l.json"), 1, "a", "x")
    assert isinstance(bad, BadRow)
    assert bad.reason == "no 'label'"


def test_a_string_has_no_column_that_is_named(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.json", '["a"]', TableFormat(text_column="body"))) == ["1: not a JSON object"]


def test_json_that_is_one_object_is_a_row_or_an_error_that_lists_its_keys(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.json", '{\n"text": "a"\n}')) == ["a"]
    with pytest.raises(TableError, match="not a JSON list of texts, or of objects with 'text', but an object with 'data', 'meta'"):
        rows(tmp_path / "t.json", '{"data": [], "meta": 1}')
    with pytest.raises(TableError, match="not a JSON list"):
        rows(tmp_path / "t.json", "3")


def test_json_lines_are_read_by_the_name_of_json_too(tmp_path: Path) -> None:
    read = texts(rows(tmp_path / "t.json", '{"text": "a"}\n{"text": "b"}\n{\n'))
    assert read[:2] == ["a", "b"]
    assert read[2].startswith("3: not JSON")


def test_json_that_is_cut_off_names_the_place_and_a_list_is_not_json_lines(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"t\.json: not JSON: .*, in line 2, column 1"):
        rows(tmp_path / "t.json", '[{"text": "a"},\n')
    with pytest.raises(TableError, match="empty document"):
        rows(tmp_path / "t.json", "")
    for content in ('[{"text": "a"}]', '["a", "b"]', '[\n{"text": "a"}\n]\n'):
        with pytest.raises(TableError, match="looks like a JSON list, not JSON Lines; --input-format json reads it"):
            rows(tmp_path / "t.jsonl", content)
    assert rows(tmp_path / "t.json", "[]") == []


def test_half_an_emoji_is_replaced_and_the_row_is_used(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.jsonl", r'{"text": "cut \ud83d"}')) == ["cut \ufffd"]
    assert texts(rows(tmp_path / "t.json", r'["cut \ud83d", "whole \ud83d\ude00"]')) == ["cut \ufffd", "whole \U0001f600"]
    (row,) = rows(tmp_path / "t.jsonl", r'{"text": "a", "label": "\ude00"}', labelled=True)
    assert isinstance(row, Row)
    assert row.label == "\ufffd"


# --- what is assumed to be lines


@pytest.mark.parametrize("name", ["t.txt", "t", "t.log.gz"])
@pytest.mark.parametrize(
    ("line", "is_like"),
    [
        ('{"text": "a"}', "JSON"),
        ('{"body": {"a": 1}, "x": [1', "JSON"),
        ("[", "JSON"),
        ("{", "JSON"),
        ('["a", "b"]', "JSON"),
        ('[{"text": "a"},', "JSON"),
        ("text", "CSV"),
        ("Text", "CSV"),
        ('"text"', "CSV"),
        ("id,text,label", "CSV"),
        ("id, text, label", "CSV"),
        ('"id";"Text"', "CSV"),
        ("first name\ttext", "CSV"),
        ("text|label", "CSV"),
    ],
)
def test_a_first_line_that_looks_otherwise_names_the_option(tmp_path: Path, name: str, line: str, is_like: str) -> None:
    content = f"\n{line}\na,b\n"
    raw = gzip.compress(content.encode()) if name.endswith("gz") else content
    with pytest.raises(TableError, match=f"looks like {is_like}; --input-format .* --input-format lines as plain text"):
        rows(tmp_path / name, raw)
    assert texts(rows(tmp_path / name, raw, TableFormat(Kind.LINES))) == ["1: 'text' is blank", line, "a,b"]


@pytest.mark.parametrize(
    "line",
    [
        "Hello, my payment failed, please help",
        "Please call, text, or email me",
        "Please call me, text me or write",
        "[urgent] payment failed",
        '["urgent"] payment failed',
        "{name} wrote: text",
        "[1]",
        "text me",
        "a; b; c",
        '"quoted text"',
        "text, text, text",
    ],
)
def test_plain_text_with_commas_and_brackets_goes_on_working(tmp_path: Path, line: str) -> None:
    assert texts(rows(tmp_path / "t.txt", f"{line}\nb\n")) == [line, "b"]


def test_a_text_column_is_not_ignored_where_there_are_no_columns(tmp_path: Path) -> None:
    for table in (TableFormat(text_column="body"), TableFormat(Kind.LINES, text_column="text")):
        with pytest.raises(TableError, match=r"lines of plain text have no columns for --text-column; .*--input-format csv"):
            rows(tmp_path / "t.txt", "a\n", table)


def test_the_format_that_is_named_wins_over_the_name(tmp_path: Path) -> None:
    assert texts(rows(tmp_path / "t.txt", '{"text": "a"}\n', TableFormat(Kind.JSONL))) == ["a"]
    assert texts(rows(tmp_path / "t.jsonl", "id,text\n1,a\n", TableFormat(Kind.CSV))) == ["a"]
    assert texts(rows(tmp_path / "t.csv", "id,text\n", TableFormat(Kind.LINES))) == ["id,text"]
    assert texts(rows(tmp_path / "t.csv", '["a"]', TableFormat(Kind.JSON))) == ["a"]
    assert texts(rows(tmp_path / "t", "id\ttext\n1\ta\n", TableFormat(Kind.TSV))) == ["a"]
