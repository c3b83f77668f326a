"""What differs between two versions of a generation, document by document.

Chunks never change and keep their ids for good, so only segments that one version names and the other does not, or
names with other tombstones, are read; and of the documents in them only those whose chunks came or went. It reads
objects and changes nothing.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..objects.store import ObjectStore
from .lookups import Chunks, read_chunks, read_documents
from .manifests import Manifest, SegmentEntry
from .rows import DocumentRecord


@dataclass(frozen=True)
class Served:
    """A document as one version serves it, by ``chunks`` chunks."""

    document: DocumentRecord
    chunks: int

    def is_of(self, content_hash: bytes) -> bool:
        """Say whether it was made of these bytes, as far as the segment tells."""
        told = self.document.original
        return told is None or told["content_hash"] == content_hash.hex()


@dataclass(frozen=True)
class Change:
    """A document that the versions serve differently. One of the two is None: it was added, or removed."""

    before: Served | None
    after: Served | None

    @property
    def document(self) -> DocumentRecord:
        """The document as the later version that has it serves it."""
        served = self.after or self.before
        assert served is not None
        return served.document


def compare(objects: ObjectStore, before: Manifest | None, after: Manifest | None) -> list[Change]:
    """Return the documents that differ, by id. None is a version without any.

    Raises:
        Damaged: a segment or its tombstones are missing or not what was written.
    """
    old, new = _segments(before), _segments(after)
    former = [entry for entry in old if entry not in new]
    latter = [entry for entry in new if entry not in old]
    former_chunks = [read_chunks(objects, entry) for entry in former]
    latter_chunks = [read_chunks(objects, entry) for entry in latter]
    differing = np.setxor1d(_chunk_ids(former_chunks), _chunk_ids(latter_chunks), assume_unique=True)
    if not len(differing):
        return []
    touched = {owner for chunks in (*former_chunks, *latter_chunks) for owner in _owners(chunks, among=differing)}
    were, are = _served(objects, former, document_ids=touched), _served(objects, latter, document_ids=touched)
    return [Change(were.get(document_id), are.get(document_id)) for document_id in sorted(touched)]


def _segments(manifest: Manifest | None) -> list[SegmentEntry]:
    return manifest.segments if manifest else []


def _chunk_ids(several: Sequence[Chunks]) -> NDArray[np.uint64]:
    return np.concatenate([np.empty(0, "<u8"), *(chunks.chunk_ids for chunks in several)])


def _owners(chunks: Chunks, *, among: NDArray[np.uint64]) -> Iterable[str]:
    """Yield the documents that own one of these chunks; ``among`` ascends and is not empty."""
    places = np.searchsorted(among, chunks.chunk_ids)
    found = among[np.minimum(places, len(among) - 1)] == chunks.chunk_ids
    for position in np.unique(chunks.document[found]).tolist():
        yield chunks.documents.id_of(position)


def _served(
    objects: ObjectStore, segments: Sequence[SegmentEntry], *, document_ids: Collection[str]
) -> dict[str, Served]:
    """Return how these segments serve these documents, by id."""
    found: dict[str, Served] = {}
    for entry in segments:
        for document, count in read_documents(objects, entry, document_ids=document_ids):
            elsewhere = found.get(document.document_id)
            found[document.document_id] = Served(document, count + (elsewhere.chunks if elsewhere else 0))
    return found
