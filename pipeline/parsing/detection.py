"""Decides what kind of file some bytes are: by their first bytes, then the file name, then the declared media type.

Reads no text: whether bytes without a mark are text at all is decided while decoding them.
"""

import re
from pathlib import PurePosixPath
from typing import Literal, NoReturn

from ..errors import ParseError

Kind = Literal["text", "markdown", "html", "pdf", "docx", "csv", "json", "jsonl"]

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
MEDIA_TYPES: dict[Kind, str] = {
    "text": "text/plain",
    "markdown": "text/markdown",
    "html": "text/html",
    "pdf": "application/pdf",
    "docx": DOCX,
    "csv": "text/csv",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
}
_BY_MEDIA_TYPE: dict[str, Kind] = {media_type: kind for kind, media_type in MEDIA_TYPES.items()} | {
    "application/xhtml+xml": "html",
    "application/jsonl": "jsonl",
    "application/x-jsonlines": "jsonl",
    "text/tab-separated-values": "csv",
    "text/x-markdown": "markdown",
}
_BY_SUFFIX: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".log": "text",
    ".rst": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".ipynb": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_NAMES: dict[Kind, str] = {"pdf": "a PDF", "docx": "a Word document", "html": "a web page", "csv": "a table"}

_LEADING = b"\xef\xbb\xbf \t\r\n\0"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
# (?>…) never goes back into a comment: a page of nothing but comments would take for ever.
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?>(?:<\?xml[^>]*>|<!--(?:(?!-->).)*-->)\s*)*<(?:!doctype\s+html|html[\s>])",
    re.IGNORECASE | re.DOTALL,
)
_FOREIGN: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"\x89PNG\r\n\x1a\n", "a PNG image"),
        (rb"\xff\xd8\xff", "a JPEG image"),
        (rb"GIF8[79]a", "a GIF image"),
        (rb"II\*\0|MM\0\*", "a TIFF image"),
        (rb"RIFF....WEBP", "a WebP image"),
        (rb"RIFF....(?:WAVE|AVI )", "a sound or video file"),
        (rb"....ftyp", "a video or HEIC file"),
        (rb"ID3[\x00-\x0a]|OggS\0|fLaC\0", "a sound file"),
        (rb"\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ\0|7z\xbc\xaf|Rar!\x1a|\x28\xb5\x2f\xfd", "a compressed archive"),
        (rb"\x7fELF|MZ[^\n]{0,60}\0|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe|\0asm", "a program"),
        (rb"SQLite format 3\0|PAR1.*PAR1\Z", "a database file"),
        (rb"\{\\rtf", "a rich text (RTF) file"),
        (rb"%!PS", "a PostScript file"),
    )
)


def detect(data: bytes, *, filename: str, media_type: str | None) -> Kind:
    """Return what ``data`` is; PDF and Word documents are recognised under any name.

    Raises:
        ParseError: ``mislabelled`` when the name promises a PDF or Word document and the bytes are none, ``binary``
            when it promises text, ``unsupported_type`` for a known format that is not read, ``encrypted``.
    """
    named = _named(filename, media_type)
    if data[:64].lstrip(_LEADING).startswith(b"%PDF-") or (named in {None, "pdf"} and b"%PDF-" in data[:1024]):
        return "pdf"
    if data.startswith(_ZIP):
        return _zipped(data, named, filename)
    if data.startswith(_OLE):
        return _compound(data, named, filename)
    for pattern, name in _FOREIGN:
        if pattern.match(data):
            _refuse(name, named, filename)
    if named in {"pdf", "docx"}:
        _refuse("something else", named, filename)
    if named in {None, "text", "html"} and _HTML.match(data, 0, 4096):
        return "html"
    return named or "text"


def _named(filename: str, media_type: str | None) -> Kind | None:
    by_suffix = _BY_SUFFIX.get(PurePosixPath(filename.lower()).suffix)
    return by_suffix or _BY_MEDIA_TYPE.get((media_type or "").partition(";")[0].strip().lower())


def _zipped(data: bytes, named: Kind | None, filename: str) -> Kind:
    # Names inside a zip are not compressed, and the first ones survive when the end of the file is missing.
    other_office = any(folder in data for folder in (b"xl/workbook", b"ppt/presentation", b"mimetypeapplication/"))
    if b"word/" not in data and (named != "docx" or other_office):
        _refuse("a spreadsheet, presentation or archive", named, filename)
    return "docx"


def _compound(data: bytes, named: Kind | None, filename: str) -> NoReturn:
    if _OLE_ENCRYPTED in data:
        raise ParseError("encrypted", "It is protected by a password: remove the password and submit it again.")
    _refuse("a file of an old Office version", named, filename)


def _refuse(found: str, named: Kind | None, filename: str) -> NoReturn:
    if named in {"pdf", "docx"}:
        promised = _NAMES[named]
        raise ParseError(
            "mislabelled", f"It is called {promised} but is {found}: submit the real file, or give it its real name."
        )
    if named is not None:
        raise ParseError(
            "binary", f"It is {found}, not text as its name says: convert it to text, PDF or DOCX and submit that."
        )
    suffix = PurePosixPath(filename).suffix or "no suffix"
    raise ParseError(
        "unsupported_type",
        f"It is {found} ({suffix}), which cannot be read: convert it to PDF, DOCX, HTML or text and submit that.",
    )
