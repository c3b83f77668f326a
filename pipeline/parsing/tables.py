"""CSV and its relatives: each row becomes lines ``name: value``, so that a passage explains itself."""

import csv
import io
from collections.abc import Iterator, Sequence

from ..errors import ParseError
from .decoding import decode
from .detection import MEDIA_TYPES
from .documents import Deadline, ParsedDocument, ParseLimits
from .writing import TextWriter, clean

_DELIMITERS = ",;\t|"
_SAMPLED_ROWS = 20
_MAX_LABEL_CHARACTERS = 80
_SAMPLED_CHARACTERS = 16_384


def parse_csv(data: bytes, limits: ParseLimits, deadline: Deadline) -> ParsedDocument:
    """Return one block per row, under its first cell as heading.

    Without a header row the names are ``column 1``, ``column 2`` and so on, and there are no headings.
    """
    text = clean(decode(data))
    writer = TextWriter(limits, deadline)
    rows = _rows(text, sniff_delimiter(text))
    first = next(rows, [])
    names = [" ".join(name.split()) for name in first] if _is_header(first) else []
    if not names:
        writer.add(_record(first, names))
    for row in rows:
        writer.add(_record(row, names), heading=_label(row) if names else None)
    if names and not writer.holds_text:
        writer.add(", ".join(names))
    return writer.finish(title=None, media_type=MEDIA_TYPES["csv"])


def sniff_delimiter(text: str) -> str:
    """Return the delimiter that splits the first rows most evenly; a comma when none splits them."""
    sample = text[:_SAMPLED_CHARACTERS]
    if len(text) > len(sample):
        sample = sample.rpartition("\n")[0] or sample

    def evenness(delimiter: str) -> tuple[float, int]:
        widths = []
        try:
            for row, _ in zip(csv.reader(io.StringIO(sample), delimiter=delimiter), range(_SAMPLED_ROWS), strict=False):
                widths.append(len(row))
        except csv.Error:
            return 0.0, 0
        usual = max(set(widths), key=widths.count) if widths else 0
        return (widths.count(usual) / len(widths), usual) if usual > 1 else (0.0, 0)

    return max(_DELIMITERS, key=evenness)


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        for row in reader:
            if any(cell and not cell.isspace() for cell in row):
                yield row
    except csv.Error as error:
        raise ParseError(
            "malformed",
            f"Line {reader.line_num} cannot be read as a table ({error}): look for a quote that is not closed before"
            f" it, and keep a cell under {csv.field_size_limit():,} characters.",
        ) from error


def _is_header(row: Sequence[str]) -> bool:
    cells = [cell.strip() for cell in row]
    return all(cells) and len(set(cells)) == len(cells) and not any(_is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _label(row: Sequence[str]) -> str | None:
    """Return what the row is about, its first cell, when that is words rather than a number or a long text."""
    words = " ".join(row[0].split())
    return words if words and len(words) <= _MAX_LABEL_CHARACTERS and not _is_number(words) else None


def _record(row: Sequence[str], names: Sequence[str]) -> str:
    lines = []
    for column, cell in enumerate(row):
        if value := " ".join(cell.split()):
            name = names[column] if column < len(names) else f"column {column + 1}"
            lines.append(f"{name}: {value}")
    return "\n".join(lines)
