"""Word documents (DOCX): paragraphs and tables in document order, without page headers, comments and deletions."""

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from ..errors import ParseError
from .detection import MEDIA_TYPES
from .documents import Deadline, ParsedDocument, ParseLimits
from .writing import Outline, TextWriter, one_line

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_MARKS = {_W + "tab": "\t", _W + "br": "\n", _W + "cr": "\n", _W + "noBreakHyphen": "-"}
_BLOCKS = frozenset({_W + "p", _W + "tbl"})
_TITLE_LEVEL = 0
_MAX_EXPANSION = 4  # of limits.max_bytes: pictures and styles expand too, a bomb expands a thousandfold
_MAX_PARTS = 10_000
_HEADING_STYLE = re.compile(r"heading (\d)")


def parse_docx(data: bytes, limits: ParseLimits, deadline: Deadline) -> ParsedDocument:
    """Return paragraphs and tables as blocks, a table row as one line with its cells between bars."""
    check_archive(data, limits)
    deadline.check()
    import docx  # noqa: PLC0415 -- a slow import that only Word documents need
    from docx.exceptions import PythonDocxError  # noqa: PLC0415
    from docx.opc.exceptions import OpcError  # noqa: PLC0415
    from lxml.etree import LxmlError  # type: ignore[import-untyped]  # noqa: PLC0415

    try:
        return _Body(docx.Document(io.BytesIO(data)), limits, deadline).read()
    except (OpcError, PythonDocxError, LxmlError) as error:
        raise ParseError(
            "malformed", "The Word document is damaged: open it in Word, save it under a new name, submit that."
        ) from error


def check_archive(data: bytes, limits: ParseLimits) -> None:
    """Refuse an archive that is broken, encrypted, no Word document, or would expand to too much."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError) as error:
        raise ParseError(
            "truncated", "The Word document breaks off before its end: copy or download it again."
        ) from error
    if any(part.flag_bits & 1 for part in parts):
        raise ParseError("encrypted", "It is protected by a password: remove the password and submit it again.")
    if "word/document.xml" not in {part.filename for part in parts}:
        raise ParseError("mislabelled", "It is an archive but no Word document: submit the real DOCX file.")
    # zipfile reads no more of a part than its header declares, so a false header cannot get past this.
    expanded = sum(part.file_size for part in parts)
    if expanded > _MAX_EXPANSION * limits.max_bytes or len(parts) > _MAX_PARTS:
        raise ParseError(
            "too_large",
            f"The Word document expands to {expanded >> 20:,} MiB in {len(parts):,} parts:"
            " split it, or take out pictures and attachments.",
        )


class _Body:
    """One pass over the body of a document."""

    def __init__(self, document: Any, limits: ParseLimits, deadline: Deadline) -> None:
        self._document = document
        self._writer = TextWriter(limits, deadline)
        self._outline = Outline()
        self._styles = _style_names(document)
        self._title: str | None = None
        self._after_item = False

    def read(self) -> ParsedDocument:
        for block in _blocks(self._document.element.body):
            if block.tag == _W + "tbl":
                rows = (_row(row) for row in block.iterchildren(_W + "tr"))
                self._writer.add("\n".join(row for row in rows if row), heading=self._outline.path)
            else:
                self._add_paragraph(block)
        title = self._document.core_properties.title or self._title
        return self._writer.finish(title=title, media_type=MEDIA_TYPES["docx"])

    def _add_paragraph(self, paragraph: Any) -> None:
        text = _paragraph_text(paragraph)
        style = _style_name(paragraph, self._styles)
        level = _heading_level(style)
        if level is not None:
            self._outline.enter(level, text)
            self._title = self._title or one_line(text)
        is_item = style.startswith("list") or paragraph.find(f"{_W}pPr/{_W}numPr") is not None
        self._writer.add(text, heading=self._outline.path, gap="\n" if is_item and self._after_item else "\n\n")
        self._after_item = is_item


def _style_names(document: Any) -> dict[str, str]:
    named = ((style, style.find(_W + "name")) for style in document.styles.element.iterchildren(_W + "style"))
    return {style.get(_W + "styleId"): name.get(_W + "val", "").lower() for style, name in named if name is not None}


def _style_name(paragraph: Any, names: dict[str, str]) -> str:
    style = paragraph.find(f"{_W}pPr/{_W}pStyle")
    return names.get(style.get(_W + "val"), "") if style is not None else ""


def _heading_level(style: str) -> int | None:
    heading = _HEADING_STYLE.fullmatch(style)
    return int(heading[1]) if heading else _TITLE_LEVEL if style == "title" else None


def _blocks(container: Any) -> Iterator[Any]:
    """Yield paragraphs and tables in document order, also those inside content controls and tracked insertions."""
    waiting = [iter(container)]
    while waiting:
        element = next(waiting[-1], None)
        if element is None:
            waiting.pop()
        elif element.tag in _BLOCKS:
            yield element
        else:
            waiting.append(iter(element))


def _row(row: Any) -> str:
    cells = (
        one_line(" ".join(_paragraph_text(paragraph) for paragraph in cell.iter(_W + "p")))
        for cell in row.iter(_W + "tc")
        if next(cell.iterancestors(_W + "tr")) is row  # a cell of a table inside a cell is read with that cell
    )
    return " | ".join(cell for cell in cells if cell)


def _paragraph_text(paragraph: Any) -> str:
    """Return the words of a paragraph; a text box is stored twice, so its fallback copy is left out."""
    return "".join(_pieces(paragraph))


def _pieces(element: Any) -> Iterator[str]:
    for child in element:
        if child.tag == _W + "t":
            yield child.text or ""
        elif child.tag in _MARKS:
            yield _MARKS[child.tag]
        elif child.tag != _FALLBACK and child.tag != _W + "pPr":
            yield from _pieces(child)
