"""Where the rows of a document are in a segment: a sorted list of hashed document ids, looked up where it is mapped.

It answers for tombstoned rows too, and knows no other segment. Hashes only lead the way: the ids are compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged
from .records import Documents
from .sections import Array

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
    arrays: Mapping[str, Array],
    *,
    documents: Documents,
    owners: NDArray[np.uint32],
    document_ids: Iterable[str],
    in_order: bool,
) -> NDArray[np.uint32]:
    """Return the ascending rows u32 of these documents; costs a few lookups each, however large the segment is.

    Args:
        arrays: the sections of ``build_keys``.
        owners: u32[n], the document of each row, ascending where ``in_order``.

    Raises:
        Damaged: the sections do not fit the segment.
    """
    count = len(documents)
    keys, order = read_keys(arrays, count=count)
    wanted = list(dict.fromkeys(map(Documents.encoded_id, document_ids)))
    sought = np.fromiter(map(_key, wanted), "<u8", len(wanted))
    first, end = np.searchsorted(keys, sought, "left"), np.searchsorted(keys, sought, "right")
    places = zip(first.tolist(), end.tolist(), wanted, strict=True)
    candidates = [(ordinal, encoded) for a, b, encoded in places for ordinal in order[a:b].tolist()]
    if any(ordinal >= count for ordinal, _ in candidates):
        raise Damaged("the list of document ids names one that is not there; restore or rebuild the segment")
    ordinals = np.array(sorted(one for one, encoded in candidates if documents.raw_id(one) == encoded), "<u4")
    if not in_order:
        return np.flatnonzero(np.isin(owners, ordinals)).astype("<u4")
    spans = zip(np.searchsorted(owners, ordinals, "left"), np.searchsorted(owners, ordinals, "right"), strict=True)
    rows = [np.arange(a, b, dtype="<u4") for a, b in spans]
    return np.concatenate(rows) if rows else np.empty(0, "<u4")


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
