"""The field index of a segment: which documents hold which metadata values, without declaring any field first.

Per dotted path and kind (metadata.py) it keeps the sorted distinct values and, for each, the ordinals of the documents
that hold it. Kinds never mix: text, booleans and numbers are compared with their own kind only; numbers exactly, whole
with fractional ones too. Dates compare as numbers or, in ISO form, as text. What is known of every document has
built-in paths that begin with ``$``.

It must not know rows, tombstones or expiry, and never guesses: the answer to a filter is exact.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..metadata import Scalar, flatten
from .columns import KINDS, Bools, CompareOp, FieldIndex, Holders, encoded, pack, sought_as
from .records import DocumentRecord

__all__ = [
    "BUILT_IN",
    "And",
    "Compare",
    "CompareOp",
    "Contains",
    "Exists",
    "FieldIndex",
    "Filter",
    "Member",
    "MemberOp",
    "Or",
    "build_index",
    "evaluate",
]

MemberOp = Literal["in", "nin"]

BUILT_IN = ("$document_id", "$event_time", "$expires_at", "$ingested_at", "$media_type", "$source", "$title")


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
    columns: Holders = defaultdict(lambda: defaultdict(list))
    for ordinal, document in enumerate(documents):
        for values in (built_in_values(document), flatten(document.metadata)):
            for path, value in values:
                if value != value:  # NaN equals nothing, and has no place in an order  # noqa: PLR0124
                    continue
                key = encoded(value) if isinstance(value, str) else value
                holders = columns[encoded(path), _kind_number(value)][key]
                if not holders or holders[-1] != ordinal:
                    holders.append(ordinal)
    return pack(columns, document_count=len(documents))


def _kind_number(value: Scalar) -> int:
    kinds = sought_as(value)[1]
    return KINDS.index(kinds[-1] if isinstance(value, float) else kinds[0])
