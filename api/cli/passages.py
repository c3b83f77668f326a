"""The part of a chunk that a person reads first: where most words of the query stand, with those words marked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

LENGTH = 360
Span = tuple[int, int]


def marked_passage(text: str, query: str, *, styled: bool) -> "Text":
    """Return up to `LENGTH` characters of ``text`` on one paragraph, matched words in bold, or in «» without styles."""
    from rich.text import Text

    from penstock.pipeline.highlighting import highlight

    text = "".join(char if char.isprintable() else " " for char in text)
    spans = [(int(start), int(end)) for start, end in highlight(text, query)]
    begin, end = window(text, spans, length=LENGTH)
    passage = Text("… " if begin else "")
    at = begin
    for first, last in spans:
        if first < at or last > end:
            continue
        passage.append(_folded(text[at:first], passage.plain))
        word = text[first:last]
        passage.append(word, style="bold yellow") if styled else passage.append(f"«{word}»")
        at = last
    passage.append(_folded(text[at:end], passage.plain))
    return passage.append(" …") if end < len(text) else passage


def window(text: str, spans: Sequence[Span], *, length: int) -> Span:
    """Return the part of ``text``, at most about ``length`` characters between words, that holds most spans."""
    if len(text) <= length:
        return 0, len(text)
    starts = [0, *(max(0, start - length // 6) for start, _ in spans)]
    begin = max(starts, key=lambda at: (sum(at <= start and end <= at + length for start, end in spans), -at))
    begin = min(begin, len(text) - length)
    if begin:
        begin = text.find(" ", begin, begin + 30) + 1 or begin
    end = begin + length
    if end < len(text):
        end = max(text.rfind(" ", end - 30, end), begin) if text.rfind(" ", end - 30, end) > begin else end
    return begin, min(end, len(text))


def _folded(text: str, before: str) -> str:
    """Return ``text`` with runs of blanks as one: line breaks of the document mean nothing in a passage."""
    folded = " ".join(text.split())
    if not folded:
        return " " if text and before and not before.endswith(" ") else ""
    lead = " " if text[0].isspace() and before and not before.endswith(" ") else ""
    return f"{lead}{folded}{' ' if text[-1].isspace() else ''}"
