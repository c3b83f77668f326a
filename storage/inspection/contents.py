"""What an index holds against what the ledger says it holds: document by document, by version and number of chunks.

The ledger says of each document which version is indexed. The index must hold all chunks of that version, and nothing
else must be live in it. Versions are compared by their number: a fork has the documents of its parent, under other ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.tables import OF_DOCUMENT, documents
from ..catalog.tables import versions as versions_table
from ..ids import DocumentId, GenerationId, VersionId
from ..manifests import SegmentEntry
from ..objects import ObjectStore
from ..segments import read_chunks


@dataclass(frozen=True)
class IndexedDocument:
    """The version of a document that the ledger says is indexed. ``chunk_count`` is None where it does not know."""

    version_id: VersionId
    number: int
    source: str
    chunk_count: int | None


Held = dict[DocumentId, dict[int, int]]  # live chunks of each version, by its number, of each document
Indexed = Mapping[DocumentId, IndexedDocument]


@dataclass(frozen=True)
class Difference:
    """``lost``: indexed by the ledger, but not whole in the index. ``stray``: live, but not what the ledger indexes."""

    lost: Sequence[DocumentId] = ()
    stray: Sequence[DocumentId] = ()
    stray_chunks: int = 0


@dataclass
class Contents:
    """What the segments hold that were added to it."""

    held: Held = field(default_factory=dict)

    def add(self, objects: ObjectStore, entry: SegmentEntry) -> None:
        """Add the live chunks of a segment. Raises Damaged."""
        chunks = read_chunks(objects, entry)
        counts = np.bincount(chunks.document, minlength=len(chunks.documents))
        for position in np.flatnonzero(counts).tolist():
            record = chunks.documents[position]
            of_document = self.held.setdefault(DocumentId(record.document_id), {})
            of_document[record.number] = of_document.get(record.number, 0) + int(counts[position])

    def difference(self, indexed: Indexed) -> Difference:
        """Return where this and the ledger differ, by document id."""
        lost = [document_id for document_id, said in indexed.items() if not self._is_whole(document_id, said)]
        strays = {
            document_id: sum(
                count for version, count in versions.items() if not _is_said(indexed, document_id, version)
            )
            for document_id, versions in self.held.items()
        }
        stray = sorted(document_id for document_id, count in strays.items() if count)
        return Difference(sorted(lost), stray, sum(strays.values()))

    def excess(self, indexed: Indexed) -> set[DocumentId]:
        """Return the documents of which this holds more chunks of the indexed version than the ledger counts."""
        return {
            document_id
            for document_id, said in indexed.items()
            if said.chunk_count is not None and self.held.get(document_id, {}).get(said.number, 0) > said.chunk_count
        }

    def _is_whole(self, document_id: DocumentId, said: IndexedDocument) -> bool:
        count = self.held.get(document_id, {}).get(said.number, 0)
        return count > 0 if said.chunk_count is None else count == said.chunk_count


def _is_said(indexed: Indexed, document_id: DocumentId, number: int) -> bool:
    said = indexed.get(document_id)
    return said is not None and said.number == number


def read_contents(objects: ObjectStore, entries: Iterable[SegmentEntry]) -> Contents:
    """Return what these segments hold. Raises Damaged."""
    contents = Contents()
    for entry in entries:
        contents.add(objects, entry)
    return contents


def read_indexed(connection: Connection, generation_id: GenerationId) -> dict[DocumentId, IndexedDocument]:
    """Return what the ledger says is indexed in a generation."""
    versions = versions_table.c
    named = (versions.document_id, versions.id, versions.number, documents.c.source, versions.chunk_count)
    wanted = sa.select(*named).join(documents, OF_DOCUMENT)
    wanted = wanted.where(versions.generation_id == generation_id, versions.state == "indexed")
    return {
        DocumentId(row.document_id): IndexedDocument(VersionId(row.id), row.number, row.source, row.chunk_count)
        for row in connection.execute(wanted)
    }
