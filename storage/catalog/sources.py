"""Documents by their producer's own names: which are here, and what their newest version holds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ids import CollectionId, DocumentId, ManifestVersion, TenantId, new_id
from .completion import UNFINISHED
from .documents import NOT_KEPT
from .engine import Catalog
from .statements import insert_absent
from .tables import GONE, OF_DOCUMENT, documents, versions
from .values import batched, slices

_LISTED = sa.Table(  # of one transaction, on PostgreSQL: what is to be locked in one order, whatever order it comes in
    "listed_documents",
    sa.MetaData(),
    sa.Column("id", sa.String(64), primary_key=True),
    prefixes=["TEMPORARY"],
    postgresql_on_commit="DROP",
)


@dataclass(frozen=True)
class KnownDocument:
    """A document and its newest version; before the first, the numbers are 0 and the rest None.

    ``highest``: the highest number it ever had, which is not ``number`` after a rollback.
    """

    id: DocumentId
    number: int
    highest: int
    state: str | None
    content_hash: bytes | None
    metadata_hash: bytes | None

    @property
    def is_here(self) -> bool:
        """Whether it is in its collection, and not about to leave it. A first version that was cancelled never came."""
        return self.number > 0 and self.state not in (*GONE, "deleting", "cancelled")

    def holds(self, content_hash: bytes, metadata_hash: bytes) -> bool:
        """Say whether just this is in progress or indexed already, so that it need not be taken again."""
        same = (self.content_hash, self.metadata_hash) == (content_hash, metadata_hash)
        return same and self.state not in NOT_KEPT


def read_sources(
    connection: Connection, collection_id: CollectionId, *, sources: Sequence[str]
) -> dict[str, KnownDocument]:
    """Return the documents that exist, by source."""
    newest = sa.and_(OF_DOCUMENT, versions.c.number == documents.c.newest)
    of_version = (versions.c.state, versions.c.content_hash, versions.c.metadata_hash)
    wanted = sa.select(documents.c.id, documents.c.source, documents.c.newest, documents.c.highest, *of_version)
    wanted = wanted.join(versions, newest, isouter=True).where(documents.c.collection_id == collection_id)
    found: dict[str, KnownDocument] = {}
    for some in slices(sources):
        for row in connection.execute(wanted.where(documents.c.source.in_(some))):
            hashes = (row.content_hash, row.metadata_hash)
            found[row.source] = KnownDocument(row.id, row.newest, row.highest, row.state, *hashes)
    return found


@dataclass(frozen=True)
class Arrival:
    """How far documents are on their way into searches.

    ``waiting``: the sources whose newest version is not over; ``indexed_version``: the version of the index that holds
    all those that are indexed, None when none is.
    """

    waiting: list[str]
    indexed_version: ManifestVersion | None


def read_arrival(catalog: Catalog, *, collection_id: CollectionId, sources: Sequence[str]) -> Arrival:
    """Say what searches have still to wait for. Sources of which nothing is known any more are not waited for."""
    newest = sa.and_(OF_DOCUMENT, versions.c.number == documents.c.newest)
    told = sa.select(documents.c.source, versions.c.state, versions.c.indexed_version).join(versions, newest)
    told = told.where(documents.c.collection_id == collection_id)
    with catalog.read() as connection:
        rows = [row for some in slices(sources) for row in connection.execute(told.where(documents.c.source.in_(some)))]
    indexed = [ManifestVersion(row.indexed_version) for row in rows if row.state == "indexed"]
    return Arrival([row.source for row in rows if row.state in UNFINISHED], max(indexed, default=None))


def hold_sources(
    connection: Connection, collection_id: CollectionId, *, tenant: TenantId, sources: Sequence[str], now: float
) -> dict[str, KnownDocument]:
    """Return every document, making those that are new. Nobody else numbers their versions until the commit."""
    while True:
        known = _hold_or_make(connection, collection_id, tenant=tenant, sources=sources, now=now)
        if all(source in known for source in sources):
            return known  # else one that was deleted long ago was pruned between two of the statements


def _hold_or_make(
    connection: Connection, collection_id: CollectionId, *, tenant: TenantId, sources: Sequence[str], now: float
) -> dict[str, KnownDocument]:
    known = read_sources(connection, collection_id, sources=sources)
    missing = [source for source in sources if source not in known]
    if missing:
        made = sorted(DocumentId(new_id("doc")) for _ in missing)
        row = {"tenant_id": tenant, "collection_id": collection_id, "newest": 0, "created_at": now}
        rows = [{"id": new, "source": source, **row} for new, source in zip(made, missing, strict=True)]
        # In one order whoever submits: a row that another is inserting is waited for.
        insert_absent(connection, documents, sorted(rows, key=lambda row: str(row["source"])))
        new_documents = zip(missing, made, strict=True)
        known |= {source: KnownDocument(new, 0, 0, None, None, None) for source, new in new_documents}
    if connection.dialect.name == "sqlite":  # this transaction is the only writer
        return known
    lock_sources(connection, collection_id, sources=sources)
    return read_sources(connection, collection_id, sources=sources)


def lock_sources(connection: Connection, collection_id: CollectionId, *, sources: Sequence[str]) -> None:
    """Wait for whoever numbers versions of these documents, and keep others from it until the commit."""
    if connection.dialect.name == "sqlite":  # this transaction is the only writer
        return
    for some in slices(sorted(sources)):
        held = sa.select(documents.c.id).where(documents.c.collection_id == collection_id)
        held = held.where(documents.c.source.in_(some)).order_by(
            sa.collate(documents.c.source, "C")
        )  # as sorted() does
        # Not FOR UPDATE: that would stop those who add a row below a document, or touch one twice, and look for it.
        connection.execute(held.with_for_update(key_share=True)).all()


def lock_documents(connection: Connection, collection_id: CollectionId, *, ids: Iterable[str]) -> None:
    """Do what ``lock_sources`` does, for as many documents as there may be: their ids are not held in memory."""
    if connection.dialect.name == "sqlite":
        return
    _LISTED.create(connection)
    for some in batched(ids):
        connection.execute(sa.insert(_LISTED), [{"id": one} for one in some])
    wanted = sa.select(documents.c.id).join(_LISTED, _LISTED.c.id == documents.c.id)
    wanted = wanted.where(documents.c.collection_id == collection_id).order_by(sa.collate(documents.c.source, "C"))
    held = wanted.with_for_update(of=documents, key_share=True).subquery()
    connection.execute(sa.select(sa.func.count()).select_from(held))  # one row, in whose making all were locked
