"""From the bytes of one file to its text. Reads nothing but those bytes and writes nothing."""

from .documents import ParsedDocument, ParseLimits, Span
from .parser import parse

__all__ = ["ParseLimits", "ParsedDocument", "Span", "parse"]
