"""The text that a person sees of an HTML document, as mail programs send them.

A document is cut at its tags, in one go whose time grows with its length alone: what clients send may be made to harm. The standard
library's parser takes 5 seconds for 100 kB of `<!--`, and a parser in C died of a document with 200,000 open tags. What is not
shown (style sheets, scripts, the head, comments, attributes) is left out, and each block begins on a line of its own.
"""

from __future__ import annotations

import html
import re
from typing import Final

# What is taken for HTML: a tag that stands for a document, or two tags that mark up text. A text may say "a < b", or name a tag.
_DOCUMENT: Final = re.compile(r"<(?:!doctype\s+html|html|body|head)\b[^<>]*>", re.IGNORECASE)
_MARKUP: Final = re.compile(
    r"</?(?:a|b|blockquote|br|center|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|small|span|strong|style|table|tbody|td|th|tr|u|ul)"
    r"(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
# Comments, declarations and processing instructions, also those without an end.
_UNSHOWN: Final = re.compile(r"<!--.*?(?:-->|\Z)|<[!?][^>]*(?:>|\Z)", re.DOTALL)
# A tag: whether it ends an element, its name, and the rest up to the next bracket.
_TAG: Final = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]*)([^<>]*)>")
_HIDDEN: Final = frozenset({"head", "script", "style", "template", "title"})
_INLINE: Final = frozenset({"a", "abbr", "b", "code", "em", "font", "i", "img", "small", "span", "strong", "sub", "sup", "u"})


def is_html(text: str) -> bool:
    """Whether a text is an HTML document, or a part of one."""
    if "<" not in text:
        return False
    if _DOCUMENT.search(text):
        return True
    tags = _MARKUP.finditer(text)
    return next(tags, None) is not None and next(tags, None) is not None


def plain_text(text: str) -> str:
    """The text of an HTML document, blocks on lines of their own; any other text as it is."""
    if not is_html(text):
        return text
    shown: list[str] = []
    hidden = ""  # the element that is not shown, and that the parts are in
    # Text, then whether the tag behind it ends an element, its name and its rest; and so on.
    parts = _TAG.split(_UNSHOWN.sub("", text))
    for start in range(0, len(parts), 4):
        if not hidden:
            shown.append(parts[start].replace("\n", " "))
        if start + 1 == len(parts):
            break
        end, name, rest = parts[start + 1], parts[start + 2].lower(), parts[start + 3]
        if hidden:
            # A head that nobody closed ends where the body begins.
            hidden = "" if (end and name == hidden) or name == "body" else hidden
        elif name in _HIDDEN and not end and not rest.endswith("/"):
            hidden = name
        if name not in _INLINE:
            shown.append("\n")
    lines = (" ".join(line.split()) for line in html.unescape("".join(shown)).split("\n"))
    return "\n".join(line for line in lines if line)
