"""Files opened: encodings, gzip, what is no text, pipes."""

from __future__ import annotations

import gzip
import os
import threading
from itertools import islice
from pathlib import Path

import pytest

from models.tables import Row, TableError, TableFormat, open_text, read_table, source_name

CSV = "text,label\nné 😀,x\n"


def texts(path: Path, table: TableFormat | None = None) -> list[str]:
    return [row.text if isinstance(row, Row) else f"{row.line}: {row.reason}" for row in read_table(path, table)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("named", [None, "windows-1252"])
def test_a_byte_order_mark_tells_the_encoding_and_wins(tmp_path: Path, encoding: str, named: str | None) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes((("\ufeff" if encoding.endswith("be") else "") + CSV).encode(encoding))
    assert texts(path, TableFormat(encoding=named)) == ["né 😀"]
    path = tmp_path / "t.json"
    path.write_bytes((("\ufeff" if encoding.endswith("be") else "") + '["né"]').encode(encoding))
    assert texts(path, TableFormat(encoding=named)) == ["né"]


def test_utf_16_by_its_mark_is_said(tmp_path: Path) -> None:
    path, said = tmp_path / "t.csv", list[str]()
    path.write_bytes(CSV.replace(",", "\t").encode("utf-16"))
    assert len(list(read_table(path, notice=said.append))) == 1
    assert said == [f"{path}: read as UTF-16-LE, by its byte order mark", f"{path}: fields are separated by tabs"]


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf_16_without_a_mark_is_an_error_that_names_the_option(tmp_path: Path, order: str) -> None:
    for name in ("t.csv", "t.txt", "t.jsonl"):
        path = tmp_path / name
        path.write_bytes(CSV.encode(f"utf-16-{order}"))
        with pytest.raises(
            TableError, match=f"not text in UTF-8, but full of zeros; if it is UTF-16, say --encoding utf-16-{order}"
        ):
            texts(path)
    path = tmp_path / "t.csv"
    path.write_bytes(CSV.encode("utf-16-le"))
    assert texts(path, TableFormat(encoding="utf-16")) == texts(path, TableFormat(encoding="UTF-16LE")) == ["né 😀"]


def test_an_encoding_is_used_where_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("text\nné €\n\x81\n".encode("cp1252", "replace"))
    assert texts(path, TableFormat(encoding="Windows-1252"))[0] == "né €"
    path.write_bytes(b"text\nfine\n\x81\n")
    assert texts(path, TableFormat(encoding="windows-1252")) == [
        "fine",
        "3: 'text' is not valid CP1252; --encoding names another one, such as windows-1252",
    ]
    path.write_bytes("text\n日本語\n".encode("shift_jis"))
    assert texts(path, TableFormat(encoding="shift_jis")) == ["日本語"]


@pytest.mark.parametrize("encoding", ["nonsense", "base64", "utf\0", "undefined"])
def test_an_encoding_that_is_none_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.txt"
    path.write_text("a\n")
    with pytest.raises(TableError, match="no such encoding; there are utf-8"):
        texts(path, TableFormat(encoding=encoding))


def test_half_a_pair_in_utf_16_is_replaced_and_half_a_character_at_the_end_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes("\ufeffa\ud83db\nc".encode("utf-16-le", "surrogatepass"))
    assert texts(path) == ["a\ufffdb", "c"]
    path.write_bytes("\ufeffabc".encode("utf-16-le")[:-1])
    with pytest.raises(TableError, match="truncated data; --encoding names another one"):
        texts(path)


def test_an_encoding_that_cannot_escape_bytes_ends_with_a_readable_error(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"a\n+AAAA\n")
    with pytest.raises(TableError, match=r"t\.txt: 'utf7' codec .*; --encoding names another one"):
        texts(path, TableFormat(encoding="utf-7"))


@pytest.mark.parametrize("name", ["t.csv.gz", "t.CSV.GZ", "t.csv.gzip", "t.csv"])
def test_gzip_is_read_whatever_the_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(CSV.encode()) + gzip.compress(b"second,y\n"))
    assert texts(path) == ["né 😀", "second"]
    path.write_bytes(gzip.compress(CSV.encode("utf-16")))
    assert texts(path) == ["né 😀"]


def test_other_names_with_gz(tmp_path: Path) -> None:
    for name, content in (("a.txt.gz", "a\n"), ("a.gz", "a\n"), ("a.jsonl.gz", '{"text": "a"}'), ("a.json.gz", '["a"]')):
        (tmp_path / name).write_bytes(gzip.compress(content.encode()))
        assert texts(tmp_path / name) == ["a"]


def test_gzip_that_is_cut_off_damaged_or_none_is_an_error_after_the_rows_before(tmp_path: Path) -> None:
    path = tmp_path / "t.txt.gz"
    whole = gzip.compress("".join(f"{number * 7919 % 10007} payment\n" for number in range(5000)).encode())
    for content, fault in (
        (whole[:-20], "cut off or damaged"),
        (whole[: len(whole) // 2] + b"\xff" * 9 + whole[len(whole) // 2 :], "damaged"),
        (whole + b"more", "damaged"),
    ):
        path.write_bytes(content)
        read = read_table(path)
        assert sum(isinstance(row, Row) for row in islice(read, 100)) == 100
        with pytest.raises(TableError, match=f"t.txt.gz: the gzip file is {fault}"):
            list(read)
    for content in (b"plain text\n", b""):
        path.write_bytes(content)
        with pytest.raises(TableError, match="is not gzip, in spite of its name"):
            texts(path)
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(TableError, match="compressed by gzip twice"):
        texts(path)


@pytest.mark.parametrize(
    ("content", "meaning"),
    [
        (b"PK\x03\x04 and more", "an Excel workbook; unpack it, or save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook; save"),
        (b"PAR1\x15\x00", "read_parquet"),
        (b"BZh91AY&SYabc", "bunzip2"),
        (b"\xfd7zXZ\x00\x00", "unxz"),
        (b"\x28\xb5\x2f\xfd\x00", "unzstd"),
    ],
)
def test_what_is_no_text_is_named_with_the_way_out(tmp_path: Path, content: bytes, meaning: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(TableError, match=meaning):
        texts(path)


@pytest.mark.parametrize("step", [1, 3, 5000])
def test_a_pipe_is_read_once_however_its_bytes_arrive(tmp_path: Path, step: int) -> None:
    path, content = tmp_path / "pipe", gzip.compress("".join(f"line {number}\n" for number in range(3000)).encode())
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as stream:
            for start in range(0, len(content), step):
                stream.write(content[start : start + step])

    writer = threading.Thread(target=write)
    writer.start()
    assert texts(path) == [f"line {number}" for number in range(3000)]
    writer.join()


def test_lines_can_be_looked_at_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("a\nb\nc")
    with open_text(path) as file:
        assert file.peek(1) == ["a\n"]
        assert file.peek(9) == file.peek(9) == ["a\n", "b\n", "c"]
        assert list(file) == ["a\n", "b\n", "c"]
        assert list(file) == []


def test_a_name_in_other_bytes_can_be_printed() -> None:
    assert source_name(Path(os.fsdecode(b"caf\xe9.txt"))) == "caf\ufffd.txt"
    assert source_name(Path("-")) == source_name(Path("/dev/stdin")) == "standard input"
