"""The field index of a segment: which documents hold which metadata values, without declaring any field first.

Per dotted path and kind (metadata.py) it keeps the sorted distinct values and, for each, the ordinals of the documents
that hold it. Kinds never mix: text, booleans and numbers are compared with their own kind only; numbers exactly, whole
with fractional ones too. Dates compare as numbers or, in ISO form, as text. What is known of every document has
built-in paths that begin with ``$``.

It must not know rows, tombstones or expiry, and never guesses: the answer to a filter is exact.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import Damaged
from .metadata import Scalar, flatten
from .rows import DocumentRecord

Kind = Literal["boolean", "integer", "real", "string"]  # stored by position: append only
CompareOp = Literal["eq", "ne", "gt", "gte", "lt", "lte"]
MemberOp = Literal["in", "nin"]
Bools = NDArray[np.bool_]

KINDS: tuple[Kind, ...] = get_args(Kind)
BUILT_IN = ("$document_id", "$event_time", "$expires_at", "$ingested_at", "$media_type", "$source", "$title")
SECTIONS = {"columns": "int64", "values": "int64", "offsets": "int64", "postings": "uint32", "text": "uint8"}


@dataclass(frozen=True)
class Compare:
    """One value of ``key`` compares with ``value``; ``ne`` is the negation of ``eq``, so it accepts a missing key."""

    op: CompareOp
    key: str
    value: Scalar


@dataclass(frozen=True)
class Member:
    """One value of ``key`` is among ``values``; ``nin`` is the negation, so it accepts a missing key."""

    op: MemberOp
    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Exists:
    """``key`` holds a value, itself or below it (``present=False``: it holds none)."""

    key: str
    present: bool = True


@dataclass(frozen=True)
class Contains:
    """The list ``key`` has the element ``value``; a scalar counts as a list of one."""

    key: str
    value: Scalar


@dataclass(frozen=True)
class And:
    """Every one of ``filters`` accepts; so does none at all."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True)
class Or:
    """At least one of ``filters`` accepts."""

    filters: tuple["Filter", ...]


Filter = Compare | Member | Exists | Contains | And | Or


def built_in_values(document: DocumentRecord) -> Iterator[tuple[str, Scalar]]:
    """Yield what every document has, under the paths of `BUILT_IN`; what is unknown is left out."""
    for path in BUILT_IN:
        value = getattr(document, path[1:])
        if value is not None:
            yield path, value


@dataclass(frozen=True)
class FieldIndex:
    """Sorted columns of values with postings, as arrays that are stored and mapped as they are.

    Attributes:
        document_count: documents of the segment; ordinals in ``postings`` are below it.
        columns: i64[c + 1, 3], sorted by path and kind: where in ``text`` the path stands, position in `KINDS`, first
            value. The last row closes the list.
        values: i64[v], ascending within a column: a number, the bits of a float64, or a place in ``text``.
        offsets: i64[v + 1]; the holders of value i are ``postings[offsets[i]:offsets[i + 1]]``.
        postings: u32[p], ordinals of documents.
        text: u8[t], each entry a little-endian u32 length and its UTF-8 bytes.
    """

    document_count: int
    columns: NDArray[np.int64]
    values: NDArray[np.int64]
    offsets: NDArray[np.int64]
    postings: NDArray[np.uint32]
    text: NDArray[np.uint8]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the sections to store; a fixed number of them, however many fields there are."""
        return {f"fields/{name}": getattr(self, name) for name in SECTIONS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, document_count: int) -> "FieldIndex":
        """Open the sections of `to_arrays` in place. Raises `Damaged` when they do not fit together."""
        try:
            index = cls(document_count, *(arrays[f"fields/{name}"] for name in SECTIONS))
        except KeyError as error:
            raise Damaged(f"the field index has no section {error}") from error
        index.check_structure()
        return index

    def check_structure(self) -> None:
        """Raise `Damaged` unless the ends of all parts fit together; costs no pass over the values."""
        fits = all(getattr(self, name).dtype == dtype for name, dtype in SECTIONS.items())
        fits = fits and self.columns.ndim == 2 and self.columns.shape[0] > 0 and self.columns.shape[1] == 3
        fits = fits and self.offsets.shape == (len(self.values) + 1,) and self.columns[-1, 2] == len(self.values)
        if not fits or self.offsets[-1] != len(self.postings):
            raise Damaged("the sections of the field index do not fit together")

    def kinds(self, path: str) -> set[Kind]:
        """Return the kinds of value that documents hold at ``path`` itself; empty when none does."""
        return {KINDS[self.columns[column, 1]] for column in self._columns(path, below=False)}

    def holding(self, path: str) -> Bools:
        """Return bool[document_count]: who holds any value at ``path`` or below it."""
        mask = np.zeros(self.document_count, np.bool_)
        for column in self._columns(path, below=True):
            self._mark(mask, int(self.columns[column, 2]), int(self.columns[column + 1, 2]))
        return mask

    def comparing(self, path: str, op: CompareOp, value: Scalar) -> Bools:
        """Return bool[document_count]: who holds a value at ``path`` that compares; for ``ne``, who holds no equal."""
        mask = np.zeros(self.document_count, np.bool_)
        if value != value:  # NaN compares with nothing, and would mislead the bisection  # noqa: PLR0124
            return ~mask if op == "ne" else mask
        sought, kinds = _sought(value)
        for column in self._columns(path, below=False):
            if KINDS[self.columns[column, 1]] in kinds:
                self._mark(mask, *self._span(column, op, sought))
        return ~mask if op == "ne" else mask

    def _span(self, column: int, op: CompareOp, sought: Any) -> tuple[int, int]:
        first, end = int(self.columns[column, 2]), int(self.columns[column + 1, 2])
        value_at = (self._integer_at, self._integer_at, self._real_at, self._text_of)[self.columns[column, 1]]
        below = first + bisect_left(range(first, end), sought, key=value_at)
        upto = first + bisect_right(range(first, end), sought, key=value_at)
        spans = {"lt": (first, below), "lte": (first, upto), "gt": (upto, end), "gte": (below, end)}
        return spans.get(op, (below, upto))

    def _mark(self, mask: Bools, first: int, end: int) -> None:
        mask[self.postings[self.offsets[first] : self.offsets[end]]] = True

    def _columns(self, path: str, *, below: bool) -> list[int]:
        exact = _encoded(path)
        count = len(self.columns) - 1
        spans = [(exact, exact)] + ([(exact + b".", exact + b"/")] if below else [])  # "/" is what follows "."
        found: list[int] = []
        for low, high in spans:
            first = bisect_left(range(count), low, key=self._path_of)
            bound = bisect_right if low == high else bisect_left
            found += range(first, bound(range(count), high, key=self._path_of))
        return found

    def _path_of(self, column: int) -> bytes:
        return self._text_at(int(self.columns[column, 0]))

    def _integer_at(self, value: int) -> int:
        return int(self.values[value])

    def _real_at(self, value: int) -> float:
        return float(self.values[value : value + 1].view(np.float64)[0])

    def _text_of(self, value: int) -> bytes:
        return self._text_at(int(self.values[value]))

    def _text_at(self, position: int) -> bytes:
        start = position + 4
        return self.text[start : start + int.from_bytes(self.text[position:start].tobytes(), "little")].tobytes()


def _sought(value: Scalar) -> tuple[Any, tuple[Kind, ...]]:
    if isinstance(value, str):
        return _encoded(value), ("string",)
    return value, ("boolean",) if isinstance(value, bool) else ("integer", "real")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a query may hold anything; UTF-8 keeps the order of code points


def evaluate(index: FieldIndex, filter: Filter) -> Bools:  # noqa: A002  (the word of the grammar)
    """Return bool[index.document_count]: the documents that ``filter`` accepts. Never raises for a value's kind."""
    match filter:
        case Compare(op, key, value):
            return index.comparing(key, op, value)
        case Contains(key, value):
            return index.comparing(key, "eq", value)
        case Exists(key, present):
            return index.holding(key) if present else ~index.holding(key)
        case Member(op, key, values):
            among = _reduced(np.logical_or, index, tuple(Compare("eq", key, value) for value in values))
            return ~among if op == "nin" else among
        case And(filters):
            return _reduced(np.logical_and, index, filters)
        case Or(filters):
            return _reduced(np.logical_or, index, filters)


def _reduced(join: np.ufunc, index: FieldIndex, filters: Sequence[Filter]) -> Bools:
    result = np.full(index.document_count, join.identity, np.bool_)
    for inner in filters:
        join(result, evaluate(index, inner), out=result)
    return result


def build_index(documents: Sequence[DocumentRecord]) -> FieldIndex:
    """Index the metadata and the built-in values of ``documents``; ordinals are positions in the sequence."""
    columns: dict[tuple[bytes, int], dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    for ordinal, document in enumerate(documents):
        for values in (built_in_values(document), flatten(document.metadata)):
            for path, value in values:
                if value != value:  # NaN equals nothing, and has no place in an order  # noqa: PLR0124
                    continue
                key = _encoded(value) if isinstance(value, str) else value
                holders = columns[_encoded(path), _kind_number(value)][key]
                if not holders or holders[-1] != ordinal:
                    holders.append(ordinal)
    return _packed(columns, document_count=len(documents))


def _kind_number(value: Scalar) -> int:
    kinds = _sought(value)[1]
    return KINDS.index(kinds[-1] if isinstance(value, float) else kinds[0])


def _packed(columns: Mapping[tuple[bytes, int], Mapping[Any, list[int]]], *, document_count: int) -> FieldIndex:
    text = bytearray()
    table, values, offsets, postings = [], list[int](), [0], list[int]()
    for path, kind in sorted(columns):
        table.append((_append(text, path), kind, len(values)))
        for value in sorted(columns[path, kind]):
            values.append(_stored(value, text))
            postings += columns[path, kind][value]
            offsets.append(len(postings))
    table.append((0, 0, len(values)))
    return FieldIndex(
        document_count,
        np.array(table, np.int64),
        np.array(values, np.int64),
        np.array(offsets, np.int64),
        np.array(postings, np.uint32),
        np.frombuffer(bytes(text), np.uint8),
    )


def _stored(value: bytes | float, text: bytearray) -> int:
    if isinstance(value, bytes):
        return _append(text, value)
    return int(np.float64(value).view(np.int64)) if isinstance(value, float) else int(value)


def _append(text: bytearray, entry: bytes) -> int:
    position = len(text)
    text += len(entry).to_bytes(4, "little") + entry
    return position
