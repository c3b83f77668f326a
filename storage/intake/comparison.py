"""What a submission would bring: which of its documents are here already, just so. It accepts nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..catalog.engine import Catalog
from ..catalog.sources import read_sources
from ..ids import CollectionId, DocumentId
from .submissions import SubmittedDocument, checked


@dataclass(frozen=True)
class Compared:
    """``unchanged``: sources that would make no new version. ``ids``: of the documents that exist, by source."""

    unchanged: frozenset[str]
    ids: dict[str, DocumentId]


def compare(catalog: Catalog, collection_id: CollectionId, documents: Sequence[SubmittedDocument]) -> Compared:
    """Compare documents with those of a collection, as `accept` would. Raises InvalidName, InvalidMetadata."""
    candidates = checked(documents)
    with catalog.read() as connection:
        known = read_sources(connection, collection_id, sources=[one.source for one in candidates])
    same = (
        one.source
        for one in candidates
        if one.source in known and known[one.source].holds(one.content_hash, one.metadata_hash)
    )
    return Compared(frozenset(same), {source: one.id for source, one in known.items()})
