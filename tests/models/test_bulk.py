from collections.abc import Iterator
from itertools import islice

import pytest

from models.bulk import CHUNK, Classified, classify_rows
from models.fake import FakeClassifier
from models.tables import BadRow, Row, TableError


def test_results_come_in_order_and_bad_rows_keep_their_places() -> None:
    count = 3 * CHUNK + 7
    rows: list[Row | BadRow] = [
        BadRow("f", line, "bad") if line % 10 == 3 else Row("f", line, f"refund {line}" if line % 2 else f"hello {line}")
        for line in range(count)
    ]
    results = list(classify_rows(FakeClassifier(), rows, workers=3))
    assert len(results) == count
    for line, result in enumerate(results):
        if line % 10 == 3:
            assert result == BadRow("f", line, "bad")
        else:
            assert isinstance(result, Classified)
            assert result.row.line == line
            assert result.answer["label"] == ("billing" if line % 2 else "general")


def test_a_text_without_tokens_becomes_a_bad_row() -> None:
    assert list(classify_rows(FakeClassifier(), [Row("f", 1, " ")], workers=1)) == [BadRow("f", 1, "the text is blank")]


def test_rows_before_a_fault_of_their_file_are_classified_first() -> None:
    def rows() -> Iterator[Row | BadRow]:
        for line in range(CHUNK + 3):
            yield Row("f", line, "hello")
        raise TableError("f: cut off")

    results = classify_rows(FakeClassifier(), rows(), workers=2)
    assert [result.row.line for result in islice(results, CHUNK + 3) if isinstance(result, Classified)] == list(range(CHUNK + 3))
    with pytest.raises(TableError, match="f: cut off"):
        next(results)


def test_rows_are_taken_as_they_are_needed() -> None:
    taken = 0

    def rows() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield Row("f", taken, "hello")

    results = classify_rows(FakeClassifier(), rows(), workers=1)  # type: ignore[arg-type]
    next(results)
    assert taken <= 4 * CHUNK
    results.close()  # type: ignore[attr-defined]
