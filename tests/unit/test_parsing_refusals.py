"""Each unreadable file is refused with its own reason, and nothing but ParseError ever leaves the parser."""

import io
import os
import random
import re
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.pipeline.errors import ParseError
from penstock.pipeline.parsing import ParsedDocument, ParseLimits, parse

from . import sample_files as sample

PDF = sample.pdf(["Herons wait.", "Fish swim."], title="Birds", bookmarks=["One", "Two"])
WORD = sample.word(title="Bridges")
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
NOISE = random.Random(5).randbytes(4000)
SHEET = sample.archive({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"<workbook/>"})


def encrypted_zip() -> bytes:
    data = bytearray(WORD)
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of the first central directory entry
    return bytes(data)


REFUSALS = [
    ("empty", b"", "a.docx"),
    ("empty", b"", "a.txt"),
    ("empty", b" \r\n\t ", "a.txt"),
    ("empty", b"\xef\xbb\xbf", "a.csv"),
    ("truncated", PDF[: len(PDF) // 2], "a.pdf"),
    ("truncated", WORD[: len(WORD) // 2], "a.docx"),
    ("truncated", WORD[:40], "a.docx"),
    ("truncated", b'{"a": [1, 2', "a.json"),
    ("truncated", b'{"a": 1}\n{"a": "unfin', "a.jsonl"),
    ("encrypted", sample.pdf(["secret"], password=b"secret"), "a.pdf"),
    ("encrypted", OLE + "EncryptedPackage".encode("utf-16-le"), "a.docx"),
    ("encrypted", encrypted_zip(), "a.docx"),
    ("mislabelled", b"just some words", "a.pdf"),
    ("mislabelled", b"just some words", "a.docx"),
    ("mislabelled", SHEET, "a.docx"),
    ("mislabelled", PNG, "a.pdf"),
    ("mislabelled", sample.archive({"note.txt": b"hello"}), "a.docx"),
    ("binary", PNG, "a.txt"),
    ("binary", NOISE, "a.txt"),
    ("binary", NOISE, "a.md"),
    ("binary", NOISE, "a.csv"),
    ("binary", NOISE, "a.json"),
    ("binary", b"\xff\xfe" + NOISE, "a.txt"),
    ("binary", b"some words\0and a zero", "a.txt"),
    ("binary", NOISE, "upload"),
    ("binary", SHEET, "a.txt"),
    ("binary", OLE, "a.txt"),
    ("unsupported_type", SHEET, "a.xlsx"),
    ("unsupported_type", PNG, "a.png"),
    ("unsupported_type", OLE, "a.doc"),
    ("unsupported_type", b"{\\rtf1 words}", "a.rtf"),
    ("malformed", b'{"a": 1,, }', "a.json"),
    ("malformed", b'{"a": 1}\nnonsense\n{"a": 2}', "a.jsonl"),
    ("malformed", b"[" * 100_000 + b"]" * 100_000, "a.json"),
    ("malformed", b"[" * 500 + b"1" + b"]" * 500, "a.json"),
    ("malformed", b'a,b\n"' + b"x" * 200_000, "a.csv"),
    ("malformed", b"%PDF-1.4\nnothing here\n%%EOF", "a.pdf"),
    ("no_text", sample.pdf(["", ""]), "a.pdf"),
    ("no_text", b"<html><body><script>x()</script><nav>menu</nav></body></html>", "a.html"),
    ("no_text", b"[]", "a.json"),
]


def refusal(data: bytes, filename: str, limits: ParseLimits | None = None) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse(data, filename=filename, limits=limits)
    return caught.value


def code_of(data: bytes, filename: str, limits: ParseLimits | None = None) -> str:
    return refusal(data, filename, limits).code


@pytest.mark.parametrize(("code", "data", "filename"), REFUSALS, ids=lambda value: str(value)[:12])
def test_each_unreadable_file_has_its_own_reason(code, data, filename):
    error = refusal(data, filename)
    assert error.code == code
    assert re.fullmatch(r"[A-Z][^\n]+: [^\n]+\.", error.message)  # what is wrong, then what to do


def test_a_declared_media_type_is_held_to_like_a_suffix():
    with pytest.raises(ParseError) as caught:
        parse(b"just some words", filename="upload", media_type="application/pdf")
    assert caught.value.code == "mislabelled"


def test_sizes_and_pages_are_limited():
    assert code_of(b"x" * 101, "a.txt", ParseLimits(max_bytes=100)) == "too_large"
    assert code_of(PDF, "a.pdf", ParseLimits(max_pages=1)) == "too_many_pages"


def test_a_zip_bomb_is_refused_before_it_is_unpacked():
    bomb = sample.archive({"word/document.xml": b"<w:document/>", "word/media/zeros.bin": bytes(64 << 20)})
    assert len(bomb) < 100_000
    assert code_of(bomb, "a.docx", ParseLimits(max_bytes=10 << 20)) == "too_large"


def test_an_archive_that_lies_about_its_size_is_refused():
    bomb = sample.archive({"[Content_Types].xml": b"<Types/>", "word/document.xml": bytes(8 << 20)})
    entry = bomb.rindex(b"PK\x01\x02")
    lie = bomb[: entry + 24] + (100).to_bytes(4, "little") + bomb[entry + 28 :]
    with zipfile.ZipFile(io.BytesIO(lie)) as archive:
        assert archive.getinfo("word/document.xml").file_size == 100
    assert code_of(lie, "a.docx") == "malformed"


def test_entities_in_a_word_document_are_not_expanded():
    with zipfile.ZipFile(io.BytesIO(WORD)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    lol = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))
    body = parts["word/document.xml"].replace(b"Bridges carry roads.", b"&l9;")
    parts["word/document.xml"] = body.replace(b"?>", b'?><!DOCTYPE w:document [<!ENTITY l0 "ha">' + lol + b"]>", 1)
    with_entities = sample.archive(parts)
    assert code_of(with_entities, "a.docx") == "malformed"


def test_deeply_nested_html_does_not_exhaust_the_stack():
    page = b"<html><body>" + b"<div><b>" * 20_000 + b"deep" + b"</b></div>" * 20_000
    assert parse(page, filename="a.html").text == "deep"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("filename", "data"),
    [
        ("a.txt", b"<!---->" * 580 + b"words"),
        ("a.md", b"# " + b"[" * 200_000),
        ("a.md", b"a\n" + b"=" * 200_000 + b"x"),
        ("a.html", b"<body>" + b"<header>" * 2000 + b"<table><tr><td>" * 1000 + b"words"),
    ],
)
def test_contrived_texts_take_no_longer_than_others(filename, data):
    """Each of these once took, or would take, time that grows with the square or the power of its length."""
    assert_parsed_or_refused(data, filename)


# --- damage ---------------------------------------------------------------------------------------------------------

SEEDS = {
    "a.txt": "Ein Reiher wartet am Fluß.\n".encode(),
    "a.md": sample.MARKDOWN.encode(),
    "a.html": sample.HTML.encode(),
    "a.pdf": PDF,
    "a.docx": WORD,
    "a.csv": sample.CSV.encode(),
    "a.json": sample.JSON.encode(),
    "a.jsonl": sample.JSONL.encode(),
}
EXAMPLES = int(os.environ.get("PENSTOCK_FUZZ_EXAMPLES", "60"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_parsed_or_refused(data: bytes, filename: str) -> None:
    try:
        document = parse(data, filename=filename)
    except ParseError:
        return
    assert isinstance(document, ParsedDocument)
    assert document.text.strip()
    document.text.encode()
    assert document.spans[-1].end == len(document.text)


@pytest.mark.parametrize("filename", SEEDS)
@FUZZ
@given(share=st.floats(0, 1))
def test_truncated_files_are_read_or_refused(filename, share):
    data = SEEDS[filename]
    assert_parsed_or_refused(data[: int(len(data) * share)], filename)


@pytest.mark.parametrize("filename", SEEDS)
@FUZZ
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=8))
def test_flipped_bits_are_read_or_refused(filename, flips):
    data = bytearray(SEEDS[filename])
    for share, mask in flips:
        data[int(share * len(data))] ^= mask
    assert_parsed_or_refused(bytes(data), filename)


@pytest.mark.parametrize("part", ["word/document.xml", "word/styles.xml", "[Content_Types].xml", "docProps/core.xml"])
@FUZZ
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_damage_inside_a_word_document_is_read_or_refused(part, flips):
    """Flips in the archive mostly fail its checksums; these reach the XML behind them."""
    with zipfile.ZipFile(io.BytesIO(WORD)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    content = bytearray(parts[part])
    for share, mask in flips:
        content[int(share * len(content))] ^= mask
    assert_parsed_or_refused(sample.archive({**parts, part: bytes(content)}), "a.docx")


@pytest.mark.parametrize("filename", [*SEEDS, "upload"])
@FUZZ
@given(data=st.binary(max_size=400) | st.text(max_size=400).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_read_or_refused(filename, data):
    assert_parsed_or_refused(data, filename)


@pytest.mark.parametrize("filename", ["a.html", "a.json", "a.csv", "a.md"])
@FUZZ
@given(
    words=st.lists(
        st.sampled_from([
            "<table>", "<tr>", "<td>", "</td>", "</tr>", "</table>", "<pre>", "</pre>", "<h1>", "</h1>", "<br>", "<li>",
            "<!--", "-->", "{", "}", "[", "]", '"', ":", ",", "\n", "\\u", "#", "```", "---", "=", "word", " ", "é",
        ]),
        max_size=60,
    )
)  # fmt: skip
def test_any_marks_are_read_or_refused(filename, words):
    assert_parsed_or_refused("".join(words).encode(), filename)


def test_html_that_would_keep_the_parser_for_minutes_is_refused_at_once():
    page = b"<div>" * 200_000 + b"deep" + b"</div>" * 200_000
    with pytest.raises(ParseError, match="nested too deep") as refused:
        parse(page, filename="a.html")
    assert refused.value.code == "too_large"


def test_a_long_page_with_tags_left_open_is_no_deep_one():
    page = b"<p>one <b>word<br><li>and <a name=x>another" * 40_000
    assert parse(page, filename="a.html").text.startswith("one word")
