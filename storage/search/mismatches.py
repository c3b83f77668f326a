"""Filters that compare a field with what no document holds there: an error to tell, where no hits would mislead.

A field is compared with its own kind only: text, numbers or booleans. Asking ``year > "abc"`` where documents hold
numbers is a mistake; asking for a field that no document holds is none, for the next one may. It evaluates nothing.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

from ..errors import FilterMismatch
from ..metadata import Scalar, worded
from ..segments.columns import Kind, sought_as
from ..segments.fields import And, Compare, Contains, Filter, Member, Or

_HELD: dict[Kind, str] = {"boolean": "booleans", "integer": "numbers", "real": "numbers", "string": "text"}
_ASKED: dict[Kind, str] = {"boolean": "a boolean", "integer": "a number", "real": "a number", "string": "text"}


class HoldsKinds(Protocol):
    """What some documents hold, for example those of one segment."""

    def kinds(self, path: str) -> Collection[Kind]:
        """Return the kinds of value at ``path`` itself; those of deleted documents may still be among them."""

    def holds(self, path: str) -> bool:
        """Return whether a document that is not deleted holds a value at ``path`` itself. May take milliseconds."""


def check_kinds(filter: Filter, parts: Iterable[HoldsKinds]) -> None:  # noqa: A002  (the word of the grammar)
    """Return when every field of ``filter`` may compare in some of ``parts``, or no document of them holds it.

    Where kinds are mixed it is enough that some document holds the kind that is asked for, and for ``in`` that one of
    the values has it. ``ne``, ``nin`` and ``exists`` never mismatch. Costs a look at the names of the fields.

    Raises:
        FilterMismatch: naming the field, what documents hold there, and what was asked for.
    """
    several = tuple(parts)
    for key, values in _compared(filter):
        asked = {kind for value in values for kind in sought_as(value)[1]}
        if not asked or any(not asked.isdisjoint(part.kinds(key)) for part in several):
            continue
        holding = [part for part in several if part.kinds(key) and part.holds(key)]
        if holding:
            raise _mismatch(key, values, held={kind for part in holding for kind in part.kinds(key)})


def _compared(filter: Filter) -> Iterator[tuple[str, tuple[Scalar, ...]]]:  # noqa: A002
    match filter:
        case Compare(op, key, value) if op != "ne":
            yield key, (value,)
        case Contains(key, value):
            yield key, (value,)
        case Member("in", key, values):
            yield key, values
        case And(filters) | Or(filters):
            for inner in filters:
                yield from _compared(inner)


def _mismatch(key: str, values: tuple[Scalar, ...], *, held: Collection[Kind]) -> FilterMismatch:
    value, kind = values[0], sought_as(values[0])[1][0]
    there = " and ".join(sorted({_HELD[kind] for kind in held}))
    told = worded(value)[:80]
    shown = told if len(values) == 1 else f"every value asked for, such as {told},"
    return FilterMismatch(
        f"filter on {key!r}: documents hold {there} there, and {shown} is {_ASKED[kind]}; compare it with {there}"
    )
