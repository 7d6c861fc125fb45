"""Results as rows: whatever a text holds, its row stays one."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.results import Format, writer
from models.bulk import Classified
from models.problem import MultiLabel, Regression
from models.tables import BadRow, LabelKind, Row
from models.tables.fields import read_label

ANSWER = {"label": "a", "confidence": 0.75}
letters = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('\r\n,;"\t\0\x0b\x0c\x1c\x85\u2028\u2029'))


def written(output_format: Format, *texts: str) -> str:
    stream = io.StringIO(newline="")
    write = writer(output_format, stream, ("a", "b"), with_text=True)
    for number, text in enumerate(texts, start=1):
        write(Classified(Row("f", number, text), ANSWER, (0.75, 0.25), truncated=False, stripped=False))
    write(BadRow("f\r", 9, "a\rb"))
    return stream.getvalue()


def test_a_lone_carriage_return_is_quoted_in_csv() -> None:
    lines = written(Format.CSV, "a\rb").split("\n")
    assert lines[0] == "source,line,text,label,confidence,score_a,score_b,truncated,error"
    assert lines[1:] == ['f,1,"a\rb",a,0.75,0.75,0.25,,', '"f\r",9,,,,,,,"a\rb"', ""]


@given(st.lists(st.text(letters), max_size=5))
def test_csv_reads_as_it_was(texts: list[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(written(Format.CSV, *texts), newline=""), strict=True))
    assert [row["text"] for row in rows] == [*texts, ""]
    assert rows[-1]["error"] == "a\rb"


@given(st.lists(st.text(letters), max_size=5))
def test_json_lines_are_one_a_row_to_every_way_of_counting(texts: list[str]) -> None:
    output = written(Format.JSONL, *texts)
    assert output.splitlines() == output.split("\n")[:-1]
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row.get("text") for row in rows] == [*texts, None]


@pytest.mark.parametrize("output_format", Format)
def test_rows_end_in_a_line_feed_alone(output_format: Format) -> None:
    output = written(output_format, "x")
    assert output.count("\n") == (3 if output_format is Format.CSV else 2)
    assert "\r\n" not in output


@pytest.mark.parametrize(
    ("labels", "field"), [(["a", "b"], "a|b"), ([], ""), (["a|b", "c"], '["a|b","c"]'), (["[a"], '["[a"]'), (["a"], "a")]
)
def test_several_labels_in_a_field_of_csv_are_read_again_as_they_were(labels: list[str], field: str) -> None:
    stream = io.StringIO(newline="")
    write = writer(Format.CSV, stream, (), with_text=False, answers=MultiLabel.columns)
    answer = {"labels": labels, "confidences": [0.5] * len(labels)}
    write(Classified(Row("f", 1, "x"), answer, (), truncated=False, stripped=False))
    (row,) = csv.DictReader(io.StringIO(stream.getvalue(), newline=""))
    assert (row["labels"], row["confidences"]) == (field, "|".join(["0.5"] * len(labels)))
    assert read_label(row["labels"], "labels", LabelKind.SEVERAL, "UTF-8") == tuple(labels)


def test_a_number_has_a_column_of_its_own() -> None:
    stream = io.StringIO(newline="")
    write = writer(Format.CSV, stream, ("stars",), with_text=False, answers=Regression.columns)
    write(Classified(Row("f", 1, "x"), {"value": 3.5}, (3.5,), truncated=False, stripped=False))
    assert stream.getvalue() == "source,line,value,score_stars,truncated,error\nf,1,3.5,3.5,,\n"
