"""Documents as their owner sees them: the newest version of each, and how far it came."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from ..errors import NotFound
from ..ids import CollectionId, DocumentId, JobId, TenantId, VersionId
from .collections import require_collection
from .engine import Catalog
from .tables import GONE, OF_DOCUMENT, documents, versions
from .values import slices

# A document whose newest version is in one of these states may be submitted again unchanged.
NOT_KEPT = ("failed", "cancelled", "deleting", *GONE)
_SERVED = versions.alias("served")
_IS_SERVED = sa.and_(  # of which there is one at most, and an index to find it
    _SERVED.c.document_id == documents.c.id,
    _SERVED.c.collection_id == documents.c.collection_id,
    _SERVED.c.state == sa.literal_column("'indexed'"),
)


@dataclass(frozen=True)
class DocumentInfo:
    """The newest version of one document. Times are seconds since 1970; ``stage`` and ``error`` say why it failed.

    Of a document that failed, ``attempts`` at that stage and the first and the last of all attempts. ``former_death``:
    what it failed of before it was retried, until it is indexed.

    ``searchable_number`` is the number of the version that searches find, since ``searchable_at``; None when they find
    none. After ``expires_at`` no search finds it; a little later its ``state`` is ``expired``. Of a document that was
    deleted only its source is left, until that is pruned.
    """

    id: DocumentId
    collection_id: CollectionId
    version_id: VersionId
    job_id: JobId
    source: str
    title: str | None
    filename: str
    media_type: str | None
    size_bytes: int
    metadata: Mapping[str, Any]
    event_time: float | None
    expires_at: float | None
    number: int
    state: str
    stage: str | None
    error_code: str | None
    error: str | None
    attempts: int | None
    first_attempt_at: float | None
    last_attempt_at: float | None
    former_death: Mapping[str, Any] | None
    chunk_count: int | None
    created_at: float
    finished_at: float | None
    indexed_version: int | None
    searchable_number: int | None
    searchable_at: float | None


def list_documents(
    catalog: Catalog,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    state: str | None = None,
    source: str | None = None,
    prefix: str = "",
    after: DocumentId | None = None,
    limit: int,
) -> list[DocumentInfo]:
    """Return up to ``limit`` documents by id, which is by age; the next page begins ``after`` the last one.

    Those that were deleted or expired are left out, unless ``state`` asks for them.
    ``source``: only the one document of this source; ``prefix``: only those whose source begins so.

    Raises:
        NotFound: the tenant has no such collection.
    """
    wanted = newest_versions(tenant).where(documents.c.collection_id == collection_id)
    wanted = wanted.where(versions.c.state.not_in(GONE) if state is None else versions.c.state == state)
    if source is not None:
        wanted = wanted.where(documents.c.source == source)
    if prefix:  # not LIKE: on SQLite that takes A for a
        wanted = wanted.where(sa.func.substr(documents.c.source, 1, len(prefix)) == prefix)
    if after is not None:
        wanted = wanted.where(documents.c.id > after)
    with catalog.read() as connection:
        require_collection(connection, collection_id, tenant=tenant)
        return [document_info(row) for row in connection.execute(wanted.order_by(documents.c.id).limit(limit))]


def get_document(
    catalog: Catalog, *, tenant: TenantId, collection_id: CollectionId, document_id: DocumentId
) -> DocumentInfo:
    """Return one document of a collection. Raises NotFound."""
    mine = (documents.c.id == document_id, documents.c.collection_id == collection_id)
    with catalog.read() as connection:
        row = connection.execute(newest_versions(tenant).where(*mine)).first()
    if row is None:
        raise NotFound(f"there is no document {document_id!r}")
    return document_info(row)


@dataclass(frozen=True)
class KnownSources:
    """Sources whose newest version has just these bytes: ``kept`` ones are in progress or indexed, ``dead`` failed."""

    kept: set[str]
    dead: set[str]


def known(
    catalog: Catalog, *, tenant: TenantId, collection_id: CollectionId, hashes: Mapping[str, bytes]
) -> KnownSources:
    """Return which of these sources are here already, or failed before.

    ``hashes`` maps sources to the blake2b-256 of the document's bytes. Metadata is not compared.

    Raises:
        NotFound: the tenant has no such collection.
    """
    newest = sa.and_(OF_DOCUMENT, versions.c.number == documents.c.newest)
    wanted = sa.select(documents.c.source, versions.c.content_hash, versions.c.state).join(versions, newest)
    wanted = wanted.where(documents.c.collection_id == collection_id)
    found = KnownSources(set(), set())
    with catalog.read() as connection:
        require_collection(connection, collection_id, tenant=tenant)
        for some in slices(list(hashes)):
            for row in connection.execute(wanted.where(documents.c.source.in_(some))):
                if row.content_hash == hashes[row.source] and row.state == "failed":
                    found.dead.add(row.source)
                elif row.content_hash == hashes[row.source] and row.state not in NOT_KEPT:
                    found.kept.add(row.source)
    return found


def newest_versions(tenant: TenantId) -> sa.Select[Any]:
    """Return the documents of a tenant, each with its newest version: what `document_info` reads."""
    newest = sa.and_(OF_DOCUMENT, versions.c.number == documents.c.newest)
    of_version = [versions.c[name] for name in DocumentInfo.__dataclass_fields__ if name in versions.c and name != "id"]
    columns = (documents.c.id, documents.c.source, versions.c.id.label("version_id"), *of_version)
    searchable = (_SERVED.c.number.label("searchable_number"), _SERVED.c.finished_at.label("searchable_at"))
    wanted = sa.select(*columns, *searchable).join(versions, newest).join(_SERVED, _IS_SERVED, isouter=True)
    return wanted.where(documents.c.tenant_id == tenant)


def document_info(row: Row[Any]) -> DocumentInfo:
    """Return one row of `newest_versions`."""
    return DocumentInfo(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for the row as a mapping
