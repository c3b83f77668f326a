"""Vectors that the index has already: those of chunks whose text is what it was in the version that is served.

Chunks are the same when their document and their identity are: text and chunking settings. It reads what these
documents hold, however large the index is, and changes nothing.
"""

from collections import defaultdict
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from ..objects.store import ObjectStore
from .lookups import copy_vectors, read_identities
from .manifests import Manifest, SegmentEntry
from .rows import Rows

FETCHED_BYTES = 64 << 20  # of a segment that lies elsewhere: to fetch more costs more than to embed a document again

_Sought = dict[tuple[str, bytes], list[int]]  # document and identity: the rows that need the vector


def read_kept_vectors(
    objects: ObjectStore, manifest: Manifest, rows: Rows, *, document_ids: Collection[str]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return as bool[n] which rows ``manifest`` serves of their documents already, and as f32[n, d] their vectors.

    Other rows have zeros. Only the documents of ``document_ids`` are looked for. A segment that would have to be
    downloaded is left out when it is large.

    Raises:
        Damaged: a file is missing, or what it holds of these chunks is not what was written.
    """
    mask = np.zeros(len(rows), np.bool_)
    vectors = np.zeros((len(rows), manifest.dimensions), np.float32)
    sought = _sought(rows, document_ids)
    for entry in reversed(manifest.segments):  # what was published last is likelier to be changed
        if not sought:
            break
        if _is_at_hand(objects, entry):
            _take(objects, entry, sought, mask=mask, vectors=vectors)
    return mask, vectors


def kept_identities(
    objects: ObjectStore, manifest: Manifest, *, document_ids: Collection[str]
) -> set[tuple[str, bytes]]:
    """Return document and identity of the chunks whose vectors `read_kept_vectors` would find. Raises Damaged."""
    found: set[tuple[str, bytes]] = set()
    for entry in manifest.segments if document_ids else ():
        if _is_at_hand(objects, entry):
            here = read_identities(objects, entry, document_ids=document_ids)
            found.update(zip(here.document_ids, here.identity, strict=True))
    return found


def _sought(rows: Rows, document_ids: Collection[str]) -> _Sought:
    found: _Sought = defaultdict(list)
    owners = [record.document_id for record in rows.documents]
    for row, owner in enumerate(rows.document.tolist()):
        if owners[owner] in document_ids:
            found[owners[owner], bytes(rows.identity[row])].append(row)
    return found


def _take(
    objects: ObjectStore,
    entry: SegmentEntry,
    sought: _Sought,
    *,
    mask: NDArray[np.bool_],
    vectors: NDArray[np.float32],
) -> None:
    """Fill in what this segment has of the chunks that are ``sought``, and seek them no more."""
    here = read_identities(objects, entry, document_ids={document for document, _ in sought})
    keys = list(zip(here.document_ids, here.identity, strict=True))
    first = {key: at for at, key in reversed(list(enumerate(keys))) if key in sought}
    places = sorted(first.values())
    if not places:
        return
    copied = copy_vectors(objects, entry, here.rows[places], dimensions=vectors.shape[1])
    for place, vector in zip(places, copied, strict=True):
        wanted = sought.pop(keys[place])
        vectors[wanted] = vector
        mask[wanted] = True


def _is_at_hand(objects: ObjectStore, entry: SegmentEntry) -> bool:
    away = sum(file.size_bytes for file in entry.files if not objects.is_local(file.name))
    return away <= FETCHED_BYTES
