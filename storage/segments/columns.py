"""Sorted columns of values with postings: the stored form of a segment's field index.

One column per path and kind. Kinds never mix: text, booleans and numbers are compared with their own kind only;
numbers exactly, whole with fractional ones too. The arrays are mapped and used as they are, so opening costs nothing.
It must not know what the values mean, nor rows, tombstones or expiry.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import Damaged
from ..metadata import Scalar

Kind = Literal["boolean", "integer", "real", "string"]  # stored by position: append only
CompareOp = Literal["eq", "ne", "gt", "gte", "lt", "lte"]
Bools = NDArray[np.bool_]
Holders = dict[tuple[bytes, int], dict[Any, list[int]]]  # (path, position in KINDS) → stored key → ordinals, ascending

KINDS: tuple[Kind, ...] = get_args(Kind)
SECTIONS = {"columns": "int64", "values": "int64", "offsets": "int64", "postings": "uint32", "text": "uint8"}


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
        return {KINDS[self._table[3 * column + 1]] for column in self._columns(path, below=False)}

    def spans(self) -> list[tuple[bytes, int, int, int]]:
        """Return for each column its path, position in `KINDS`, first value and end."""
        table = self._table
        return [
            (self._path_of(c), table[3 * c + 1], table[3 * c + 2], table[3 * c + 5])
            for c in range(len(self.columns) - 1)
        ]

    def texts(self, first: int, end: int) -> list[bytes]:
        """Return the values of a column of text, as UTF-8."""
        return [self._text_at(place) for place in self.values[first:end].tolist()]

    def holding(self, path: str, *, below: bool = True) -> Bools:
        """Return bool[document_count]: who holds any value at ``path``, or below it where that counts too."""
        mask = np.zeros(self.document_count, np.bool_)
        for column in self._columns(path, below=below):
            self._mark(mask, self._table[3 * column + 2], self._table[3 * column + 5])
        return mask

    def comparing(self, path: str, op: CompareOp, value: Scalar) -> Bools:
        """Return bool[document_count]: who holds a value at ``path`` that compares; for ``ne``, who holds no equal."""
        mask = np.zeros(self.document_count, np.bool_)
        if value != value:  # NaN compares with nothing, and would mislead the bisection  # noqa: PLR0124
            return ~mask if op == "ne" else mask
        sought, kinds = sought_as(value)
        for column in self._columns(path, below=False):
            if KINDS[self._table[3 * column + 1]] in kinds:
                self._mark(mask, *self._span(column, op, sought))
        return ~mask if op == "ne" else mask

    def _span(self, column: int, op: CompareOp, sought: Any) -> tuple[int, int]:
        """Return the first and the end of the values of a column that compare; ``ne`` is looked up as ``eq``."""
        first, end = self._table[3 * column + 2], self._table[3 * column + 5]
        values = range(first, end)
        value_at = self._value_at[KINDS[self._table[3 * column + 1]]]
        below = first if op in {"lte", "gt"} else first + bisect_left(values, sought, key=value_at)
        upto = end if op in {"lt", "gte"} else first + bisect_right(values, sought, key=value_at)
        spans = {"lt": (first, below), "lte": (first, upto), "gt": (upto, end), "gte": (below, end)}
        return spans.get(op, (below, upto))

    def _mark(self, mask: Bools, first: int, end: int) -> None:
        if not kernels.mark(mask, self.postings[self.offsets[first] : self.offsets[end]]):
            raise IndexError("a posting names a document that is not there")

    def _columns(self, path: str, *, below: bool) -> list[int]:
        exact = encoded(path)
        count = len(self.columns) - 1
        spans = [(exact, exact)] + ([(exact + b".", exact + b"/")] if below else [])  # "/" is what follows "."
        found: list[int] = []
        for low, high in spans:
            first = bisect_left(range(count), low, key=self._path_of)
            bound = bisect_right if low == high else bisect_left
            found += range(first, bound(range(count), high, key=self._path_of))
        return found

    def _path_of(self, column: int) -> bytes:
        return self._text_at(self._table[3 * column])

    @cached_property
    def _table(self) -> memoryview:
        return self.columns.reshape(-1).data  # its items are Python's own numbers, ten times as fast to get

    @cached_property
    def _value_at(self) -> dict[Kind, Callable[[int], Any]]:
        numbers = self.values.data
        reals = self.values.view(np.float64).data
        return {
            "boolean": numbers.__getitem__,
            "integer": numbers.__getitem__,
            "real": reals.__getitem__,
            "string": lambda value: self._text_at(numbers[value]),
        }

    @cached_property
    def _bytes(self) -> memoryview:
        return self.text.data

    def _text_at(self, position: int) -> bytes:
        start = position + 4
        return bytes(self._bytes[start : start + int.from_bytes(self._bytes[position:start], "little")])


def sought_as(value: Scalar) -> tuple[Any, tuple[Kind, ...]]:
    if isinstance(value, str):
        return encoded(value), ("string",)
    return value, ("boolean",) if isinstance(value, bool) else ("integer", "real")


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a query may hold anything; UTF-8 keeps the order of code points


def pack(columns: Holders, *, document_count: int) -> FieldIndex:
    """Return the index of what documents hold; a key is text as UTF-8, or a number."""
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


def merge(indexes: Sequence[FieldIndex], *, ordinals: Sequence[NDArray[np.int64]], document_count: int) -> FieldIndex:
    """Return the index of documents that are indexed already, without looking at them again.

    Args:
        ordinals: per index, i64[its document_count]: the new ordinal of each document, or -1 where it is left out.
            They ascend within an index, and from one index to the next.
    """
    parts: dict[tuple[bytes, int], list[_Part]] = defaultdict(list)
    for index, new in zip(indexes, ordinals, strict=True):
        for path, kind, first, end in index.spans():
            parts[path, kind].append(_Part(index, new, first, end))
    text = bytearray()
    table, values, lengths, postings = [], [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.uint32)]
    count = 0
    for path, kind in sorted(parts):
        keys, owners = _unified(parts[path, kind], kind=KINDS[kind])
        some, holders, held = _held(parts[path, kind], owners=owners, count=len(keys))
        if not len(held):
            continue
        table.append((_append(text, path), kind, count))
        if KINDS[kind] == "string":
            values.append(np.array([_append(text, keys[i]) for i in held], np.int64))
        else:
            values.append(np.asarray(keys)[held].view(np.int64))
        lengths.append(some)
        postings.append(holders)
        count += len(held)
    table.append((0, 0, count))
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(np.concatenate(lengths), out=offsets[1:])
    return FieldIndex(
        document_count,
        np.array(table, np.int64),
        np.concatenate(values),
        offsets,
        np.concatenate(postings),
        np.frombuffer(bytes(text), np.uint8),
    )


@dataclass(frozen=True)
class _Part:
    """The values of one column in one of the indexes that are merged."""

    index: FieldIndex
    ordinals: NDArray[np.int64]
    first: int
    end: int


def _unified(parts: Sequence[_Part], *, kind: Kind) -> tuple[Any, NDArray[np.int64]]:
    """Return the distinct values of all parts, ascending, and for each value of each part which one it is."""
    if kind == "string":
        texts = [text for part in parts for text in part.index.texts(part.first, part.end)]
        order = sorted(range(len(texts)), key=texts.__getitem__)
        keys, owners = list[bytes](), np.empty(len(texts), np.int64)
        for at in order:
            if not keys or keys[-1] != texts[at]:
                keys.append(texts[at])
            owners[at] = len(keys) - 1
        return keys, owners
    stored = np.concatenate([part.index.values[part.first : part.end] for part in parts])
    return np.unique(stored.view(np.float64) if kind == "real" else stored, return_inverse=True)


def _held(
    parts: Sequence[_Part], *, owners: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]:
    """Return how many documents hold each value that is held, the documents, and the positions of those values."""
    which, holders, at = [], [], 0
    for part in parts:
        offsets = part.index.offsets[part.first : part.end + 1]
        documents = part.ordinals[part.index.postings[offsets[0] : offsets[-1]]]
        of_value = np.repeat(owners[at : at + part.end - part.first], np.diff(offsets))
        which.append(of_value[documents >= 0])
        holders.append(documents[documents >= 0])
        at += part.end - part.first
    values, documents = np.concatenate(which), np.concatenate(holders)
    order = np.argsort(values, kind="stable")  # the documents ascend already, within a part and from part to part
    lengths = np.bincount(values, minlength=count)
    held = np.flatnonzero(lengths)
    return lengths[held], documents[order].astype(np.uint32), held


def _stored(value: bytes | float, text: bytearray) -> int:
    if isinstance(value, bytes):
        return _append(text, value)
    return int(np.float64(value).view(np.int64)) if isinstance(value, float) else int(value)


def _append(text: bytearray, entry: bytes) -> int:
    position = len(text)
    text += len(entry).to_bytes(4, "little") + entry
    return position
