"""Joins blocks of text into one text and keeps count of what stands where. Knows no file format."""

import re

from ..errors import ParseError
from .documents import Deadline, ParsedDocument, ParseLimits, Span

_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Lone surrogates cannot be encoded; the others are invisible, and a NUL ends strings in some databases.
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
_MAX_HEADING_CHARACTERS = 120


def clean(text: str) -> str:
    """Return ``text`` with ``\\n`` line ends, without control characters, byte order marks and lone surrogates."""
    if not text.isprintable():  # newlines are not printable: only single lines take the short way
        text = _UNWANTED.sub("", _LINE_END.sub("\n", text))
    return text


def one_line(text: str) -> str:
    """Return ``text`` with every run of white space as one space."""
    return " ".join(clean(text).split())


class Outline:
    """The headings the reader is under at the moment."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    @property
    def path(self) -> str | None:
        """The open headings, outermost first: ``Storage > Segments``. None before the first."""
        return " > ".join(text for _, text in self._open) or None

    def enter(self, level: int, text: str) -> None:
        """Open a heading; those of the same or a deeper level end. A blank one changes nothing."""
        heading = one_line(text)[:_MAX_HEADING_CHARACTERS]
        if not heading:
            return
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, heading))


class TextWriter:
    """Collects the blocks of one document in reading order."""

    def __init__(self, limits: ParseLimits, deadline: Deadline) -> None:
        self._max_characters = limits.max_characters
        self._deadline = deadline
        self._parts: list[str] = []
        self._length = 0
        self._places: list[tuple[int, int | None, str | None]] = []  # where each span starts

    @property
    def holds_text(self) -> bool:
        """Whether any block was kept."""
        return bool(self._parts)

    def add(self, text: str, *, page: int | None = None, heading: str | None = None, gap: str = "\n\n") -> None:
        """Append a block, ``gap`` before it; blank blocks are dropped.

        Raises:
            ParseError: ``too_large`` or ``timeout``.
        """
        self._deadline.check()
        block = clean(text).strip("\n")
        if not block.strip():
            return
        if self._parts:
            self._parts.append(gap)
            self._length += len(gap)
        if not self._places or self._places[-1][1:] != (page, heading):
            self._places.append((self._length, page, heading))
        self._parts.append(block)
        self._length += len(block)
        check_length(self._length, self._max_characters)

    def finish(self, *, title: str | None, media_type: str) -> ParsedDocument:
        """Return what was added.

        Raises:
            ParseError: ``no_text``.
        """
        if not self._parts:
            raise ParseError("no_text", "It was read but holds no text: submit a version with text in it.")
        ends = [start for start, _, _ in self._places[1:]] + [self._length]
        spans = [
            Span(start, end, page, heading) for (start, page, heading), end in zip(self._places, ends, strict=True)
        ]
        return ParsedDocument("".join(self._parts), title_of(title), media_type, spans)


def check_length(characters: int, max_characters: int) -> None:
    """Raise ParseError ``too_large`` when the text is longer than allowed."""
    if characters > max_characters:
        raise ParseError(
            "too_large", f"Its text is longer than {max_characters:,} characters: split it into smaller files."
        )


def title_of(text: str | None) -> str | None:
    """Return ``text`` as a title: one line of at most 300 characters, None when blank."""
    return one_line(text)[:300] or None if text else None
