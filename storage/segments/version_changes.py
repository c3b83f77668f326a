"""What differs between two versions of a generation, as little of each document as the catalog has to be told.

It is packed, about a hundred bytes for a document, so that it can be held while a transaction goes through it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged

HASH_BYTES = 32
_ID_BYTES = 64
_AT_ONCE = 4_096  # unpacked
_NONE = -1
_PACKED = np.dtype(
    [
        ("document_id", f"S{_ID_BYTES}"),
        ("before", "<i8"),
        ("after", "<i8"),
        ("chunks", "<u4"),
        ("content_hash", f"V{HASH_BYTES}"),
        ("tells_hash", "?"),
    ]
)


class VersionChange(NamedTuple):
    """The numbers of the document version that is served ``before`` and ``after``, None where none is.

    Attributes:
        chunks: that serve it afterwards.
        content_hash: of the bytes that are served afterwards, as far as the segment tells.
    """

    document_id: str
    before: int | None
    after: int | None
    chunks: int
    content_hash: bytes | None

    def is_of(self, content_hash: bytes) -> bool:
        """Say whether what is served afterwards was made of these bytes, as far as the segment tells."""
        return self.content_hash in {None, content_hash}


@dataclass(frozen=True)
class VersionChanges:
    """Changes in the order of document ids, as rows lie in the catalog; gone through as often as somebody asks."""

    packed: NDArray[Any]

    @classmethod
    def of(cls, changes: Iterable[VersionChange]) -> "VersionChanges":
        """Pack changes that come in any order. Raises Damaged: one tells what no document has."""
        packed = np.fromiter(map(_row, changes), _PACKED)
        return cls(packed[np.argsort(packed["document_id"], kind="stable")])

    def __len__(self) -> int:
        return len(self.packed)

    def __iter__(self) -> Iterator[VersionChange]:
        for first in range(0, len(self.packed), _AT_ONCE):
            yield from map(_change, self.packed[first : first + _AT_ONCE].tolist())

    def document_ids(self) -> Iterator[str]:
        return (raw.decode() for raw in self.packed["document_id"])


def _row(change: VersionChange) -> tuple[Any, ...]:
    raw, told = change.document_id.encode(), change.content_hash
    if len(raw) > _ID_BYTES or (told is not None and len(told) != HASH_BYTES):
        raise Damaged(f"the record of document {change.document_id[:_ID_BYTES]} is not what was written: restore it")
    before, after = (_NONE if number is None else number for number in (change.before, change.after))
    return raw, before, after, change.chunks, told or bytes(HASH_BYTES), told is not None


def _change(row: tuple[bytes, int, int, int, bytes, bool]) -> VersionChange:
    raw, before, after, chunks, content_hash, tells_hash = row
    return VersionChange(
        raw.decode(),
        before=None if before == _NONE else before,
        after=None if after == _NONE else after,
        chunks=chunks,
        content_hash=content_hash if tells_hash else None,
    )
