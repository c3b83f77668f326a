"""PDF: the text layer, page by page. Draws nothing and recognises no letters in pictures."""

import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import ParseError
from .detection import MEDIA_TYPES
from .documents import Deadline, ParsedDocument, ParseLimits
from .writing import Outline, TextWriter

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

# pdfium keeps global state and is not safe in threads.
_PDFIUM = threading.Lock()
_END_MARK_WITHIN_BYTES = 2048
_HYPHENATED = re.compile("[\ufffe\x02]\r?\n?")
_PLACEHOLDER_TITLE = re.compile(
    r"(?:untitled|title|document)?\d*|microsoft word - .*|.*\.(?:docx?|dvi|indd|tex|qxd)", re.IGNORECASE
)
_MAX_BOOKMARKS = 5000
_WRONG_PASSWORD = 4  # FPDF_ERR_PASSWORD


def parse_pdf(data: bytes, limits: ParseLimits, deadline: Deadline) -> ParsedDocument:
    """Return the text of all pages, each in spans of its own; headings are the bookmarks that lead to the page."""
    if b"%%EOF" not in data[-_END_MARK_WITHIN_BYTES:]:
        raise ParseError("truncated", "The PDF breaks off before its end: copy or download it again.")
    with _PDFIUM:
        document = _open(data)
        try:
            return _read(document, limits, deadline)
        finally:
            document.close()


def _open(data: bytes) -> "PdfDocument":
    import pypdfium2  # noqa: PLC0415 -- megabytes that only a PDF needs

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code == _WRONG_PASSWORD:
            raise ParseError(
                "encrypted", "The PDF is protected by a password: remove the password and submit it again."
            ) from error
        raise ParseError(
            "malformed", "The PDF is damaged and cannot be opened: export it again from where it was made."
        ) from error


def _read(document: "PdfDocument", limits: ParseLimits, deadline: Deadline) -> ParsedDocument:
    pages = len(document)
    if pages > limits.max_pages:
        raise ParseError(
            "too_many_pages",
            f"The PDF has {pages:,} pages, {limits.max_pages:,} are allowed: split it, or raise limits.max_pages.",
        )
    writer = TextWriter(limits, deadline)
    headings = dict(_bookmarks(document, deadline))
    heading = None
    for index in range(pages):
        deadline.check()
        heading = headings.get(index, heading)
        writer.add(_page_text(document, index), page=index + 1, heading=heading)
    if not writer.holds_text:
        raise ParseError(
            "no_text",
            "The PDF holds pictures but no text, as scans do: run text recognition (OCR) on it and submit the result.",
        )
    return writer.finish(title=_title(document), media_type=MEDIA_TYPES["pdf"])


def _page_text(document: "PdfDocument", index: int) -> str:
    page = document[index]
    try:
        text_page = page.get_textpage()
        try:
            text: str = text_page.get_text_bounded()
        finally:
            text_page.close()
    finally:
        page.close()
    return _HYPHENATED.sub("", text)


def _bookmarks(document: "PdfDocument", deadline: Deadline) -> Iterator[tuple[int, str | None]]:
    """Yield page index and path for each bookmark; the last one of a page is the one it is known by."""
    outline = Outline()
    for count, bookmark in enumerate(document.get_toc()):
        deadline.check()
        if count >= _MAX_BOOKMARKS:
            return
        outline.enter(bookmark.level, bookmark.get_title())
        target: Any = bookmark.get_dest()
        page = target.get_index() if target else None
        if page is not None:
            yield page, outline.path


def _title(document: "PdfDocument") -> str | None:
    title = document.get_metadata_value("Title").strip()
    return None if _PLACEHOLDER_TITLE.fullmatch(title) else title
