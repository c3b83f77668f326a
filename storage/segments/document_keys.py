"""Where the rows of a document are in a segment: a sorted list of hashed document ids, looked up where it is mapped.

It answers for tombstoned rows too, and knows no other segment. Hashes only lead the way: the ids are compared, also
those of the neighbours, so that a rotten list cannot hide a document.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged
from .ragged import joined_ranges
from .records import Documents
from .sections import Array, Sections

SECTIONS = {"document_keys": "<u8", "document_order": "<u4"}


def build_keys(documents: Documents) -> dict[str, Array]:
    """Return the sections to store: u64[d] ascending hashes of the documents' ids, and u32[d], whose each one is."""
    hashes = np.fromiter((_key(documents.raw_id(i)) for i in range(len(documents))), "<u8", len(documents))
    order = np.argsort(hashes, kind="stable")
    return {"document_keys": hashes[order], "document_order": order.astype("<u4")}


def merge_keys(several: Sequence[tuple[Array, Array]], *, ordinals: Sequence[NDArray[np.int64]]) -> dict[str, Array]:
    """Return the sections of documents that are listed already (``read_keys``), without looking at their ids.

    Args:
        ordinals: per list, i64[its documents]: the new ordinal of each, or -1 where it is left out. They ascend within
            a list, and from one list to the next.
    """
    new = [of_list[order] for (_, order), of_list in zip(several, ordinals, strict=True)]
    hashes = np.concatenate([keys[at >= 0] for (keys, _), at in zip(several, new, strict=True)])
    order = np.concatenate([at[at >= 0] for at in new]).astype("<u4")
    by_hash = np.argsort(hashes, kind="stable")
    return {"document_keys": hashes[by_hash], "document_order": order[by_hash]}


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
    keys, order = read_keys(sections.arrays, count=len(documents))
    ordinals = _ordinals_of(
        set(map(Documents.encoded_id, document_ids)), keys, order, documents=documents, source=sections.source
    )
    if not len(ordinals):
        return np.empty(0, "<u4")
    if not sections.meta.get("documents_in_order"):
        sections.verify("document")
        return np.flatnonzero(np.isin(owners, ordinals)).astype("<u4")
    return _rows_between(sections, owners, ordinals)


def _ordinals_of(
    wanted: set[bytes], keys: Array, order: Array, *, documents: Documents, source: str
) -> NDArray[np.uint32]:
    """Return the ascending ordinals u32 of the documents with these ids.

    A search may be led astray by what rotted. But it is right if the hashes where it ended, and those beside them, are
    the hashes of the documents that they stand for: what was written ascends.
    """
    encoded = list(wanted)
    sought = np.fromiter(map(_key, encoded), "<u8", len(encoded))
    first, end = np.searchsorted(keys, sought, "left"), np.searchsorted(keys, sought, "right")
    places = np.unique(joined_ranges(np.maximum(first - 1, 0), np.minimum(end + 1, len(keys))))
    ordinals, found = order[places].tolist(), []
    for ordinal, key in zip(ordinals, keys[places].tolist(), strict=True):
        listed = documents.raw_id(ordinal) if ordinal < len(keys) else None
        if listed is None or _key(listed) != key:
            raise Damaged(f"{source}: the list of document ids is not what was written; restore or rebuild it")
        if listed in wanted:
            found.append(ordinal)
    if len(found) > len(set(found)):
        raise Damaged(f"{source}: the list of document ids names one of them twice; restore or rebuild it")
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


def read_keys(arrays: Mapping[str, Array], *, count: int) -> tuple[Array, Array]:
    """Return the two sections of ``build_keys``, of ``count`` documents. Raises Damaged."""
    found = [arrays.get(name) for name in SECTIONS]
    for section, dtype in zip(found, SECTIONS.values(), strict=True):
        if section is None or section.shape != (count,) or section.dtype != np.dtype(dtype):
            raise Damaged("the list of document ids does not fit the segment; restore or rebuild it")
    keys, order = found
    assert keys is not None
    assert order is not None
    return keys, order


def key_of(document_id: str) -> int:
    """Return the hash by which a document is listed."""
    return _key(Documents.encoded_id(document_id))


def _key(encoded: bytes) -> int:
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little")
