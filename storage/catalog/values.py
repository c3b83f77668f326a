"""Fits Python values into SQL: lists short enough for an IN, text that every server stores. It runs no statement."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

IN_LIST = 500  # SQLite allows 999 parameters in its older builds
TEXT_CHARACTERS = 4_000
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def slices(items: Sequence[T], size: int = IN_LIST) -> Iterator[Sequence[T]]:
    """Yield ``items`` in order, ``size`` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def batched(items: Iterable[T], size: int = IN_LIST) -> Iterator[Sequence[T]]:
    """Yield ``items`` in order, ``size`` at a time, and hold no more of them."""
    remaining = iter(items)
    while some := list(islice(remaining, size)):
        yield some


def storable_names(texts: Collection[str]) -> list[str]:
    """Return those that something can be named by, in order: a catalog refuses to look for the others."""
    return sorted(text for text in {*texts} if is_storable(text))


def is_storable(text: str) -> bool:
    """Say whether PostgreSQL keeps this text (it refuses NUL) and UTF-8 can say it (it has no lone surrogates)."""
    return _UNSTORABLE.search(text) is None


def storable(text: str) -> str:
    """Return ``text`` without what PostgreSQL refuses (NUL) or UTF-8 cannot say (lone surrogates), and not endless.

    For titles and error messages, which come out of foreign files and libraries.
    """
    return text[:TEXT_CHARACTERS].replace("\0", "").encode("utf-8", "replace").decode("utf-8")
