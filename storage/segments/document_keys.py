"""Where the rows of a document are in a segment: a sorted list of hashed document ids, looked up where it is mapped.

It answers for tombstoned rows too, and knows no other segment. Hashes only lead the way: the ids are compared. Each
entry has a mark that tells whether it is what was written, so that a rotten list hides no document, and a look-up
needs no checksum of more than it reads.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged
from .ragged import joined_ranges
from .records import Documents
from .sections import Array, Sections

SECTIONS = {"document_keys": "<u8", "document_order": "<u4", "document_marks": "<u4"}
_ORDER_FACTOR, _MARK_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)  # odd, of evenly mixed bits


@dataclass(frozen=True)
class KeyList:
    """The documents of a segment by the hashes of their ids."""

    keys: NDArray[np.uint64]  # ascending
    order: NDArray[np.uint32]  # the document of each
    marks: NDArray[np.uint32]
    source: str

    @classmethod
    def from_sections(cls, sections: Sections, *, count: int) -> Self:
        """Return the list of ``count`` documents, as it lies in the file. Raises Damaged if it does not fit."""
        found = [sections.arrays.get(name) for name in SECTIONS]
        for section, dtype in zip(found, SECTIONS.values(), strict=True):
            if section is None or section.shape != (count,) or section.dtype != np.dtype(dtype):
                raise Damaged(f"{sections.source}: the list of document ids does not fit; restore or rebuild it")
        keys, order, marks = cast("list[Array]", found)
        return cls(keys, order, marks, sections.source)

    def check(self, places: NDArray[np.int64] | slice = slice(None)) -> None:
        """Compare the entries at these places with their marks. Raises Damaged."""
        if (_marks_of(self.keys[places], self.order[places]) != self.marks[places]).any():
            raise Damaged(f"{self.source}: the list of document ids is not what was written; restore or rebuild it")


def build_keys(documents: Documents) -> dict[str, Array]:
    """Return the sections to store: u64[d] ascending hashes of the documents' ids, u32[d] whose each is, and marks."""
    hashes = np.fromiter((_key(documents.raw_id(i)) for i in range(len(documents))), "<u8", len(documents))
    return _sorted(hashes, np.arange(len(documents), dtype="<u4"))


def merge_keys(several: Sequence[KeyList], *, ordinals: Sequence[NDArray[np.int64]]) -> dict[str, Array]:
    """Return the sections of documents that are listed already, without looking at their ids.

    Args:
        ordinals: per list, i64[its documents]: the new ordinal of each, or -1 where it is left out. They ascend within
            a list, and from one list to the next.
    """
    new = [of_list[each.order] for each, of_list in zip(several, ordinals, strict=True)]
    hashes = np.concatenate([each.keys[at >= 0] for each, at in zip(several, new, strict=True)])
    return _sorted(hashes, np.concatenate([at[at >= 0] for at in new]).astype("<u4"))


def find_rows(
    sections: Sections, *, documents: Documents, owners: NDArray[np.uint32], document_ids: Iterable[str]
) -> NDArray[np.uint32]:
    """Return the ascending rows u32 of these documents; costs a few lookups each, however large the segment is.

    What decides is compared with what was written, and nothing else: rows of another document must not leave with
    these, nor one of theirs stay.

    Args:
        sections: of the segment, with those of ``build_keys``.
        owners: u32[n], its section ``document``: the document of each row.

    Raises:
        Damaged: the sections do not fit the segment, or are not what was written.
    """
    listed = KeyList.from_sections(sections, count=len(documents))
    ordinals = _ordinals_of(set(map(Documents.encoded_id, document_ids)), listed, documents=documents)
    if not len(ordinals):
        return np.empty(0, "<u4")
    if not sections.meta.get("documents_in_order"):
        sections.verify("document")
        return np.flatnonzero(np.isin(owners, ordinals)).astype("<u4")
    return _rows_between(sections, owners, ordinals)


def _ordinals_of(wanted: set[bytes], listed: KeyList, *, documents: Documents) -> NDArray[np.uint32]:
    """Return the ascending ordinals u32 of the documents with these ids.

    A search may be led astray by what rotted. But it is right if the entries where it ended, and those beside them, are
    what was written, which ascends.
    """
    sought = np.fromiter(map(_key, wanted), "<u8", len(wanted))
    first, end = np.searchsorted(listed.keys, sought, "left"), np.searchsorted(listed.keys, sought, "right")
    listed.check(joined_ranges(np.maximum(first - 1, 0), np.minimum(end + 1, len(documents))))
    places = np.unique(joined_ranges(first, end))
    found = []
    for ordinal, key in zip(listed.order[places].tolist(), listed.keys[places].tolist(), strict=True):
        raw_id = documents.raw_id(ordinal)
        if _key(raw_id) != key:
            raise Damaged(f"{listed.source}: the id of a document is not what was written; restore or rebuild it")
        if raw_id in wanted:
            found.append(ordinal)
    return np.array(sorted(found), "<u4")


def _rows_between(sections: Sections, owners: NDArray[np.uint32], ordinals: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the rows of the documents at these places, where the owners ascend.

    A search may be led astray by what rotted. But a run of rows is right if the owner changes at both of its ends, in
    blocks that are what was written: what was written ascends.
    """
    starts, ends = (np.searchsorted(owners, ordinals, side).astype(np.int64) for side in ("left", "right"))
    decisive = np.unique(np.concatenate([starts - 1, starts, ends - 1, ends]))
    sections.verify_items("document", decisive[(decisive >= 0) & (decisive < len(owners))])
    before, within, after = starts > 0, starts < ends, ends < len(owners)
    turns = (
        (starts <= ends).all(),
        (owners[starts[before] - 1] < ordinals[before]).all(),
        (owners[starts[within]] == ordinals[within]).all(),
        (owners[ends[within] - 1] == ordinals[within]).all(),
        (owners[ends[after]] > ordinals[after]).all(),
    )
    if not all(turns):
        raise Damaged(f"{sections.source}: whose the chunks are is not what was written; restore or rebuild it")
    return joined_ranges(starts, ends).astype("<u4")


def key_of(document_id: str) -> int:
    """Return the hash by which a document is listed."""
    return _key(Documents.encoded_id(document_id))


def _key(encoded: bytes) -> int:
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little")


def _sorted(hashes: NDArray[np.uint64], ordinals: NDArray[np.uint32]) -> dict[str, Array]:
    by_hash = np.argsort(hashes, kind="stable")
    keys, order = hashes[by_hash], ordinals[by_hash]
    return {"document_keys": keys, "document_order": order, "document_marks": _marks_of(keys, order)}


def _marks_of(keys: NDArray[np.uint64], order: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return u32[n], another one for any other bit of an entry."""
    mixed = (keys ^ (order.astype("<u8") * _ORDER_FACTOR)) * _MARK_FACTOR
    return (mixed >> np.uint64(32)).astype("<u4")
