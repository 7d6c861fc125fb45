"""HTML to the text that a person sees, and what is not taken for HTML."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.markup import is_html, plain_text


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("<p>Hello</p><p>there</p>", "Hello\nthere"),
        ("<html><head><title>t</title><style>a{}</style></head><body>hi <b>you</b>!</body></html>", "hi you!"),
        ("<html><head><style>a{}<body>hi", "hi"),
        ("<p>a<br/>b</p><ul><li>x<li>y</ul>", "a\nb\nx\ny"),
        ("<div>Tom &amp; Jerry &lt;3</div>", "Tom & Jerry <3"),
        ("<!DOCTYPE html><p>x", "x"),
        ("<p>a<!-- <p>not shown</p> -->b</p>", "ab"),
        ("<p>a<!-- never closed <p>b</p>", "a"),
        ("<P CLASS='x'>a</P><SCRIPT>alert(1)</SCRIPT><p>b", "a\nb"),
        ("<p>a\nb\t c</p><p> </p>", "a b c"),
        ("<p>1 < 2 and 3 > 2</p><p>x", "1 < 2 and 3 > 2\nx"),
        ("<p>a</p><script/><p>b</p>", "a\nb"),
        ("<style></style><p>a</p>", "a"),
        ("<html></html>", ""),
    ],
)
def test_what_a_person_sees_is_left(document: str, text: str) -> None:
    assert is_html(document)
    assert plain_text(document) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "a < b and c > d",
        "I use <div> in my page",
        "mail <user@example.com> or <a@b.c>",
        "List<String> and Map<K, V>",
        "5 <i>",
    ],
)
def test_what_is_no_html_stays_as_it_is(text: str) -> None:
    assert not is_html(text)
    assert plain_text(text) is text


@given(st.text("<>/!-? abpstyle=\"'&#;\n", max_size=200))
def test_anything_has_a_text_without_blank_lines(rest: str) -> None:
    lines = plain_text("<html>" + rest).split("\n")
    assert lines == [""] or all(line == " ".join(line.split()) != "" for line in lines)


@pytest.mark.parametrize(
    "part", ["<!--", "<![", "<b ", "<b>", "<a href='", "</", "<?", "<script>", "<div>", "&#1", "</style", "<", '<a b="']
)
def test_the_time_grows_with_the_length_alone(part: str) -> None:
    def seconds(times: int) -> float:
        document = "<html>" + part * times
        started = time.process_time()
        plain_text(document)
        return time.process_time() - started

    # With the square of the length it would be 400 times as long, and some 10 seconds.
    assert seconds(100_000) < 100 * max(seconds(5_000), 0.002)
