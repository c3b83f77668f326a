"""What parsing takes and gives. Knows no file format."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ParseError


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseLimits:
    """How much of one document is read. Times are seconds, sizes bytes, lengths characters of the resulting text."""

    max_bytes: int = 50 << 20
    max_pages: int = 2000
    max_characters: int = 20_000_000
    timeout_s: float = 60.0
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``end`` of the text: their page, from 1, and the path of headings they stand under."""

    start: int
    end: int
    page: int | None = None
    heading: str | None = None


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The text of one file, never blank, with ``\\n`` as its only line end.

    The spans cover the text without gaps: the first starts at 0, each starts where the one before ends, the last ends
    at ``len(text)``. The text encodes to UTF-8 and holds no control characters but tab and newline.
    """

    text: str
    title: str | None
    media_type: str
    spans: list[Span]


class Deadline:
    """The moment at which reading one document is given up. Asked between pages, rows and blocks."""

    def __init__(self, limits: ParseLimits) -> None:
        self._clock = limits.clock
        self._timeout_s = limits.timeout_s
        self._ends_at = limits.clock() + limits.timeout_s

    def check(self) -> None:
        """Raise ParseError ``timeout`` when the time is over."""
        if self._clock() > self._ends_at:
            raise ParseError(
                "timeout",
                f"Reading it took longer than {self._timeout_s:g} s: split it into smaller files,"
                " or raise the setting limits.parse_timeout_s.",
            )
