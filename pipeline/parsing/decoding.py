"""Turns bytes into characters: byte order mark, declared encoding, UTF-8, then a guess. Refuses what is not text."""

import codecs
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ParseError

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch

# UTF-32 first: its mark begins with the one of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b")) + b"\x7f"
_HIGH = bytes(range(128, 256))
_SAMPLE_BYTES = 1 << 16
_GUESSED_BYTES = 1 << 14
# Short texts fit many encodings equally well: then the more common one.
_COMMON = (
    *("cp1252", "cp932", "euc_jis_2004", "gb18030", "cp949", "big5"),
    *("cp1250", "iso8859_2", "cp1251", "cp1253", "koi8_r"),
)
_EAST_ASIAN = (
    *("cp932", "shift_jis", "shift_jis_2004", "shift_jisx0213", "big5", "big5hkscs", "gb18030", "gbk", "gb2312"),
    *("cp949", "euc_kr", "euc_jp", "euc_jis_2004", "euc_jisx0213", "johab", "hz"),
)
# Symbols inside words, and the half-width katakana that single bytes of other scripts look like.
_ODD = re.compile(r"(?<=\w)[\u00a1-\u00ac\u00ae-\u00bf\u00d7\u00f7\u2020-\u2bff](?=\w)|[\uff61-\uff9f]")
_UNICODE = {"utf_8", "utf_8_sig", "utf_16", "utf_32", "utf_16_le", "utf_16_be", "utf_7"}


def decode(data: bytes, *, declared: str | None = None) -> str:
    """Return the characters of a text file; ``declared`` is the encoding that the file itself names.

    Raises:
        ParseError: ``binary`` when it is not text in any encoding, ``empty`` when there is nothing but white space.
    """
    text = _marked(data)
    if text is None:
        text = _zero_padded(data)
    if text is None:
        _refuse_controls(data)
        text = _declared(data, declared) or _utf8(data) or _guessed(data)
    refuse_blank(text)
    return text


def refuse_blank(text: str) -> None:
    """Raise ParseError ``empty`` when there is nothing but white space."""
    if not text or text.isspace():
        raise ParseError("empty", "It holds no text, only white space: submit it again with its content.")


def _binary() -> ParseError:
    return ParseError("binary", "It is a binary file, not text: submit it under its real name, or convert it to text.")


def _marked(data: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _plausible(data[len(mark) :].decode(encoding, "replace"))
    return None


def _zero_padded(data: bytes) -> str | None:
    """Decode UTF-16 without a mark: mostly Latin text has a zero byte beside nearly every letter."""
    sample = data[:_SAMPLE_BYTES]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if len(sample) < 4 or max(even, odd) * 2 < len(sample) * 0.7 or min(even, odd) * 100 > len(sample):
        return None
    return _plausible(data.decode("utf-16-le" if odd > even else "utf-16-be", "replace"))


def _plausible(text: str) -> str:
    sample = text[:_SAMPLE_BYTES]
    odd = sum(not (character.isprintable() or character.isspace()) or character == "\ufffd" for character in sample)
    if odd * 50 > len(sample) + 50:
        raise _binary()
    return text


def _refuse_controls(data: bytes) -> None:
    controls = len(data) - len(data.translate(None, _CONTROLS))
    if 0 in data or controls * 100 > len(data) + 100:
        raise _binary()


def _declared(data: bytes, encoding: str | None) -> str | None:
    if encoding is None:
        return None
    try:
        name = codecs.lookup(encoding).name
        # What pages call Latin-1 or ASCII is Windows-1252 in practice; the HTML standard says to read it so.
        return data.decode("cp1252" if name in {"iso8859-1", "ascii"} and not data.isascii() else name)
    except (LookupError, ValueError):  # the declaration is wrong: find out instead
        return None


def _utf8(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if error.start >= len(data) - 3 and error.reason == "unexpected end of data":
            return data[: error.start].decode()
    text = data.decode("utf-8", "replace")
    high_bytes = len(data) - len(data.translate(None, _HIGH))
    return text if text.count("\ufffd") * 20 < high_bytes else None


def _guessed(data: bytes) -> str:
    telling = b"\n".join(line for line in data.splitlines() if not line.isascii())[:_GUESSED_BYTES]
    matches = _matches(telling)
    if all(_is_odd(match) for match in matches):  # one that it likes better hides others of the same oddness
        matches += _matches(telling, without=_EAST_ASIAN)
    best = min(matches, key=_unlikelihood, default=None)
    return data.decode(best.encoding if best else "cp1252", "replace")


def _matches(data: bytes, *, without: Sequence[str] = ()) -> "list[CharsetMatch]":
    import charset_normalizer  # noqa: PLC0415 -- a slow import that few documents need

    found = charset_normalizer.from_bytes(data, cp_exclusion=list(without))
    return [match for match in found if match.encoding not in _UNICODE]


def _unlikelihood(match: "CharsetMatch") -> tuple[bool, int, float, int]:
    """Order guesses by how odd the characters look, then how unlike a language they are, then how rare the encoding."""
    rarity = _COMMON.index(match.encoding) if match.encoding in _COMMON else len(_COMMON)
    # Encodings of one byte differ in a few letters, which say little; those of two bytes in all of them.
    chaos = round(match.chaos * 10) if match.encoding in _EAST_ASIAN else int(match.chaos * 10)
    return _is_odd(match), chaos, -round(match.coherence, 1), rarity


def _is_odd(match: "CharsetMatch") -> bool:
    text = str(match)
    return len(_ODD.findall(text)) * 50 > len(text)
