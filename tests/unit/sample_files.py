"""Small files of every format that is read, made from scratch so that each byte is known."""

import hashlib
import io
import struct
import zipfile
from collections.abc import Sequence

import docx

PASSWORD_PADDING = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")

HTML = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>The  Heron</title><style>p {color: red}</style>
<script>var secret = "script words";</script></head>
<body>
<nav><a href="/">Navigation words</a></nav>
<header><a>Site name</a></header>
<h1>The heron</h1>
<p>A heron <b>waits</b>
   by the river.<br>It is patient.</p>
<h2>Food</h2>
<ul><li>Fish</li><li>Frogs</li></ul>
<table><tr><th>Prey</th><th>Share</th></tr><tr><td>Fish</td><td><p>80 %</p></td></tr></table>
<pre>keep   these
  spaces</pre>
<div hidden>Hidden words</div>
<footer>Footer words</footer>
</body></html>
"""
MARKDOWN = """# Bread

Flour and water.

## Dough ##

Knead it.

```sh
# not a heading
```

Rest
----

Wait an hour.

# Soup
"""
CSV = 'city,country,people\nRome,Italy,"2,8 million"\nOslo,Norway,700000\n'
JSON = '{"title": "Tides", "causes": ["Moon", "Sun"], "range": {"Fundy": 16.30, "big": 12345678901234567890}}'
JSONL = '{"name": "Mars", "moons": 2}\n\n{"name": "Venus", "moons": 0, "rings": null, "rocky": true}\n'


def rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out = bytearray()
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def _encryption(user_password: bytes, file_id: bytes) -> bytes:
    """The encryption dictionary of the standard handler, revision 2 (PDF 1.7, 7.6.3)."""
    padded = (user_password + PASSWORD_PADDING)[:32]
    permissions = -4
    owner = rc4(hashlib.md5(padded).digest()[:5], padded)
    key = hashlib.md5(padded + owner + struct.pack("<i", permissions) + file_id).digest()[:5]
    user = rc4(key, PASSWORD_PADDING)
    return b"<< /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P %d >>" % (
        owner.hex().encode(),
        user.hex().encode(),
        permissions,
    )


def pdf(
    pages: Sequence[str], *, title: str | None = None, bookmarks: Sequence[str] = (), password: bytes | None = None
) -> bytes:
    """One page per string, one line of text per line; the n-th bookmark leads to the n-th page."""
    objects: dict[int, bytes] = {
        3: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
    }
    page_numbers = []
    for text in pages:
        content = len(objects) + 10
        lines = "\n".join(f"({line}) Tj 0 -14 Td" for line in text.splitlines())
        stream = f"BT /F1 12 Tf 50 750 Td\n{lines}\nET".encode("cp1252") if text else b""
        objects[content] = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream)
        objects[content + 1] = (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842]"
            b" /Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>" % content
        )
        page_numbers.append(content + 1)
    kids = b" ".join(b"%d 0 R" % number for number in page_numbers)
    objects[2] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages))
    catalog = b"<< /Type /Catalog /Pages 2 0 R"
    if bookmarks:
        catalog += b" /Outlines 4 0 R"
        first = 1000
        last = first + len(bookmarks) - 1
        objects[4] = b"<< /Type /Outlines /First %d 0 R /Last %d 0 R /Count %d >>" % (first, last, len(bookmarks))
        for number, (bookmark, page) in enumerate(zip(bookmarks, page_numbers, strict=False), start=first):
            following = b" /Next %d 0 R" % (number + 1) if number < last else b""
            objects[number] = b"<< /Title (%s) /Parent 4 0 R%s /Dest [%d 0 R /Fit] >>" % (
                bookmark.encode(),
                following,
                page,
            )
    objects[1] = catalog + b" >>"
    trailer = b""
    if title:
        objects[5] = b"<< /Title (%s) >>" % title.encode()
        trailer += b" /Info 5 0 R"
    if password is not None:
        file_id = hashlib.md5(b"penstock").digest()
        objects[6] = _encryption(password, file_id)
        trailer += b" /Encrypt 6 0 R /ID [<%s> <%s>]" % (file_id.hex().encode(), file_id.hex().encode())
    return _assemble(objects, trailer)


def _assemble(objects: dict[int, bytes], trailer: bytes) -> bytes:
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    sections = [b"xref\n0 1\n0000000000 65535 f \n"]
    for number, body in sorted(objects.items()):
        sections.append(b"%d 1\n%010d 00000 n \n" % (number, len(out)))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"".join(sections)
    out += b"trailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (max(objects) + 1, trailer, start)
    return bytes(out)


def word(*, title: str | None = None) -> bytes:
    document = docx.Document()
    document.core_properties.title = title or ""
    document.add_heading("Bridges", level=0)
    document.add_paragraph("Bridges carry roads.")
    document.add_heading("Materials", level=1)
    table = document.add_table(rows=2, cols=2)
    for row, cells in zip(table.rows, (("Material", "Use"), ("Steel", "Long spans")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    document.add_paragraph("After the table.")
    document.add_heading("Stone", level=2)
    document.add_paragraph("Arches\tof stone.")
    document.add_heading("History", level=1)
    document.add_paragraph("Old ones.", style="List Bullet")
    return saved(document)


def saved(document: object) -> bytes:
    out = io.BytesIO()
    document.save(out)  # type: ignore[attr-defined]
    return out.getvalue()


def archive(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as container:
        for name, content in parts.items():
            container.writestr(name, content)
    return out.getvalue()
