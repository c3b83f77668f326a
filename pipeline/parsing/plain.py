"""Text and Markdown. Both keep every character; Markdown also tells title and headings."""

import re
from collections.abc import Iterator

from .decoding import decode, refuse_blank
from .detection import MEDIA_TYPES
from .documents import Deadline, ParsedDocument, ParseLimits, Span
from .writing import Outline, check_length, clean, title_of

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(['\"]?)(.+?)\1[ \t]*$", re.MULTILINE | re.IGNORECASE)
_MARK = re.compile(
    r"^ {0,3}(?:"
    r"(?P<fence>`{3,}|~{3,})"
    r"|(?P<hashes>\#{1,6})[ \t]+(?P<text>[^\n]+)"
    r"|(?P<line>[^\s>|#\-*+=~`][^\n]*)\n {0,3}(?P<under>=+|-{3,})[ \t]*$"
    r")",
    re.MULTILINE,
)
_HEADING_CHARACTERS = 500
_DECORATION = re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)|[*`]+|[ \t]+#+[ \t]*$")


def parse_text(data: bytes, limits: ParseLimits, deadline: Deadline) -> ParsedDocument:
    """Return the text as it is, in one span."""
    text = _whole(data, limits)
    deadline.check()
    return ParsedDocument(text, None, MEDIA_TYPES["text"], [Span(0, len(text))])


def parse_markdown(data: bytes, limits: ParseLimits, deadline: Deadline) -> ParsedDocument:
    """Return the text as it is, marks included, in one span per heading.

    The title is the ``title`` of the front matter, else the first heading of the first level.
    """
    text = _whole(data, limits)
    front = _FRONT_MATTER.match(text)
    front_title = _FRONT_TITLE.search(front[1]) if front else None
    title = front_title[2] if front_title else None
    outline = Outline()
    spans: list[Span] = []
    start = 0
    for at, level, heading in _headings(text, front.end() if front else 0):
        deadline.check()
        if at > start:
            spans.append(Span(start, at, None, outline.path))
        start = at
        outline.enter(level, heading)
        title = title or (heading if level == 1 else None)
    spans.append(Span(start, len(text), None, outline.path))
    return ParsedDocument(text, title_of(title), MEDIA_TYPES["markdown"], spans)


def _whole(data: bytes, limits: ParseLimits) -> str:
    text = clean(decode(data))
    refuse_blank(text)
    check_length(len(text), limits.max_characters)
    return text


def _headings(text: str, position: int) -> Iterator[tuple[int, int, str]]:
    """Yield position, level and words of each heading outside fenced code."""
    fence = ""
    for mark in _MARK.finditer(text, position):
        if found := mark["fence"]:
            if not fence:
                fence = found
            elif found.startswith(fence):
                fence = ""
        elif not fence:
            words = (mark["text"] or mark["line"])[
                :_HEADING_CHARACTERS
            ]  # links in it are searched for, at quadratic cost
            level = len(mark["hashes"]) if mark["hashes"] else 1 if mark["under"].startswith("=") else 2
            yield mark.start(), level, _DECORATION.sub(lambda found: found[1] or "", words)
