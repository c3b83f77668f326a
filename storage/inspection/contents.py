"""What an index holds against what the ledger says it holds: document by document, by version and number of chunks.

The ledger says of each document which version is indexed. The index must hold all chunks of that version, and nothing
else must be live in it. Versions are compared by their number: a fork has the documents of its parent, under other ids;
and by their bytes, for a rebuilt catalog may give numbers anew that past versions still know.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.tables import OF_DOCUMENT, documents
from ..catalog.tables import versions as versions_table
from ..ids import CollectionId, DocumentId, VersionId
from ..objects.store import ObjectStore
from ..segments.lookups import read_chunks
from ..segments.manifests import SegmentEntry
from ..segments.records import DocumentRecord


@dataclass(frozen=True)
class IndexedDocument:
    """The version of a document that the ledger says is indexed. ``chunk_count`` is None where it does not know."""

    version_id: VersionId
    number: int
    content_hash: str  # hex
    source: str
    chunk_count: int | None

    def is_told_by(self, text: "Text") -> bool:
        """Say whether chunks of this text are those of the version."""
        return text.number == self.number and text.content_hash in {None, self.content_hash}


class Text(NamedTuple):
    """What chunks in a segment are of: the number of a document's version, and its bytes where the segment says so."""

    number: int
    content_hash: str | None

    @classmethod
    def of(cls, record: DocumentRecord) -> Self:
        return cls(record.number, record.original["content_hash"] if record.original else None)


Held = dict[DocumentId, dict[Text, int]]  # live chunks of each text of each document
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
            text = Text.of(record)
            of_document[text] = of_document.get(text, 0) + int(counts[position])

    def difference(self, indexed: Indexed) -> Difference:
        """Return where this and the ledger differ, by document id."""
        lost = [document_id for document_id, said in indexed.items() if not self._is_whole(document_id, said)]
        strays = {
            document_id: sum(count for text, count in texts.items() if not _is_said(indexed.get(document_id), text))
            for document_id, texts in self.held.items()
        }
        stray = sorted(document_id for document_id, count in strays.items() if count)
        return Difference(sorted(lost), stray, sum(strays.values()))

    def excess(self, indexed: Indexed) -> set[DocumentId]:
        """Return the documents of which this holds more chunks of the indexed version than the ledger counts."""
        return {
            document_id
            for document_id, said in indexed.items()
            if said.chunk_count is not None and self._count(document_id, said) > said.chunk_count
        }

    def _count(self, document_id: DocumentId, said: IndexedDocument) -> int:
        return sum(count for text, count in self.held.get(document_id, {}).items() if said.is_told_by(text))

    def _is_whole(self, document_id: DocumentId, said: IndexedDocument) -> bool:
        count = self._count(document_id, said)
        return count > 0 if said.chunk_count is None else count == said.chunk_count


def _is_said(said: IndexedDocument | None, text: Text) -> bool:
    return said is not None and said.is_told_by(text)


def read_contents(objects: ObjectStore, entries: Iterable[SegmentEntry]) -> Contents:
    """Return what these segments hold. Raises Damaged."""
    contents = Contents()
    for entry in entries:
        contents.add(objects, entry)
    return contents


def read_indexed(connection: Connection, collection_id: CollectionId) -> dict[DocumentId, IndexedDocument]:
    """Return what the ledger says is indexed in a collection: its active generation must hold that."""
    versions = versions_table.c
    told = (versions.document_id, versions.id, versions.number, versions.content_hash, versions.chunk_count)
    wanted = sa.select(*told, documents.c.source).join(documents, OF_DOCUMENT)
    wanted = wanted.where(versions.collection_id == collection_id, versions.state == "indexed")
    return {
        DocumentId(row.document_id): IndexedDocument(
            VersionId(row.id), row.number, row.content_hash.hex(), row.source, row.chunk_count
        )
        for row in connection.execute(wanted)
    }
