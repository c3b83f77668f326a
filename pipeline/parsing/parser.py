"""The one way in: checks the size, finds out the kind, reads. Every failure leaves as a ParseError."""

import struct
import zipfile
import zlib
from collections.abc import Callable

from ..errors import ParseError
from .detection import Kind, detect
from .documents import Deadline, ParsedDocument, ParseLimits
from .pdf import parse_pdf
from .plain import parse_markdown, parse_text
from .records import parse_json, parse_jsonl
from .tables import parse_csv
from .webpages import parse_html
from .word import parse_docx

_Reader = Callable[[bytes, ParseLimits, Deadline], ParsedDocument]
_READERS: dict[Kind, _Reader] = {
    "text": parse_text,
    "markdown": parse_markdown,
    "html": parse_html,
    "pdf": parse_pdf,
    "docx": parse_docx,
    "csv": parse_csv,
    "json": parse_json,
    "jsonl": parse_jsonl,
}

# What the libraries raise on damaged bytes. Not `Exception`: a worker's time limit arrives as one of its own and must
# not be mistaken for a damaged file.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    EOFError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def parse(
    data: bytes, *, filename: str, media_type: str | None = None, limits: ParseLimits | None = None
) -> ParsedDocument:
    """Return the text of one file.

    The kind is decided by the first bytes, then the suffix of ``filename``, then ``media_type``.

    Raises:
        ParseError: with the reason, for anything that cannot be read within the limits.
    """
    limits = limits or ParseLimits()
    deadline = Deadline(limits)
    if not data:
        raise ParseError("empty", "The file is empty (0 bytes): submit it again with its content.")
    if len(data) > limits.max_bytes:
        raise ParseError(
            "too_large",
            f"The file has {len(data):,} bytes, {limits.max_bytes:,} are allowed:"
            " split it, or raise the setting limits.max_document_bytes.",
        )
    kind = detect(data, filename=filename, media_type=media_type)
    try:
        return _READERS[kind](data, limits, deadline)
    except TimeoutError:  # a caller's alarm
        raise
    except _DAMAGE as error:
        raise ParseError(
            "malformed", "The file is damaged and cannot be read: open it in the program that made it and save it anew."
        ) from error
