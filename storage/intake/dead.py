"""Dead documents: those whose newest version failed. Which there are, and which of them somebody means. Reads only.

They are in no index, so a filter is asked of what was submitted about them: their metadata, and what the ledger knows.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from ..catalog.collections import require_collection
from ..catalog.documents import DocumentInfo, document_info, newest_versions
from ..catalog.engine import Catalog
from ..catalog.tables import IS_DEAD, documents, versions
from ..catalog.values import slices, storable_names
from ..ids import CollectionId, DocumentId, JobId, TenantId
from ..segments.fields import Filter, build_index, evaluate
from ..segments.records import DocumentRecord

_AT_ONCE = 1_000  # documents that are looked at together
_LOOKED_AT = 20_000  # documents looked at for one page, however few of them a filter accepts


@dataclass(frozen=True)
class DeadSelection:
    """All of these must hold; with none every dead document is meant.

    ``job_id``: in which it died. ``stage``: where: chunk, embed or index.
    """

    job_id: JobId | None = None
    error_code: str | None = None
    stage: str | None = None
    filter: Filter | None = None


@dataclass(frozen=True)
class DeadPage:
    """``next_after``: where the next page begins; None when there is none. A page may be short, or empty, before it."""

    documents: list[DocumentInfo]
    next_after: DocumentId | None


def list_dead(
    catalog: Catalog,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    selection: DeadSelection,
    after: DocumentId | None = None,
    limit: int,
) -> DeadPage:
    """Return up to ``limit`` dead documents by id, which is by age.

    Raises:
        NotFound: the tenant has no such collection.
    """
    found: list[DocumentInfo] = []
    looked_at = 0
    for page in _pages(catalog, tenant, collection_id, selection, after=after, at_once=min(_AT_ONCE, limit + 1)):
        found += _accepted(page, selection.filter)
        looked_at += len(page)
        if len(found) > limit:
            return DeadPage(found[:limit], found[limit - 1].id)
        if looked_at >= _LOOKED_AT:
            return DeadPage(found, page[-1].id)
    return DeadPage(found, None)


def select_dead(
    catalog: Catalog, *, tenant: TenantId, collection_id: CollectionId, selection: DeadSelection
) -> list[DocumentId]:
    """Return the ids of all that are meant now, ascending: what dies later is not among them. Raises NotFound."""
    pages = _pages(catalog, tenant, collection_id, selection, after=None, at_once=_AT_ONCE)
    return [one.id for page in pages for one in _accepted(page, selection.filter)]


def _pages(
    catalog: Catalog,
    tenant: TenantId,
    collection_id: CollectionId,
    selection: DeadSelection,
    *,
    after: DocumentId | None,
    at_once: int,
) -> Iterator[list[DocumentInfo]]:
    """Yield what is dead, without the filter; each page is a read of its own, for the caller may be slow."""
    wanted = newest_versions(tenant).where(IS_DEAD, versions.c.collection_id == collection_id)
    for column, value in (
        (versions.c.job_id, selection.job_id),
        (versions.c.error_code, selection.error_code),
        (versions.c.stage, selection.stage),
    ):
        if value is not None:
            wanted = wanted.where(column == value)
    wanted = wanted.order_by(versions.c.document_id).limit(at_once)
    with catalog.read() as connection:
        require_collection(connection, collection_id, tenant=tenant)
    while True:
        further = wanted if after is None else wanted.where(versions.c.document_id > after)
        with catalog.read() as connection:
            page = [document_info(row) for row in connection.execute(further)]
        if page:
            yield page
        if len(page) < at_once:
            return
        after = page[-1].id


def _accepted(page: Sequence[DocumentInfo], filter: Filter | None) -> list[DocumentInfo]:  # noqa: A002
    if filter is None:
        return list(page)
    mask = evaluate(build_index([_record(one) for one in page]), filter)
    return [one for one, accepted in zip(page, mask.tolist(), strict=True) if accepted]


def _record(info: DocumentInfo) -> DocumentRecord:
    return DocumentRecord(
        document_id=info.id,
        version_id=info.version_id,
        number=info.number,
        source=info.source,
        title=info.title,
        metadata=dict(info.metadata),
        event_time=info.event_time,
        expires_at=info.expires_at,
        ingested_at=info.created_at,
        media_type=info.media_type,  # type: ignore[arg-type]  # None where only reading it would have found it out
    )


def ids_of(
    catalog: Catalog, *, tenant: TenantId, collection_id: CollectionId, sources: Collection[str]
) -> dict[str, DocumentId]:
    """Return the ids of the documents of these sources, dead or not; those of which nothing is known are left out."""
    mine = (documents.c.tenant_id == tenant, documents.c.collection_id == collection_id)
    named = sa.select(documents.c.source, documents.c.id).where(*mine)
    found: dict[str, DocumentId] = {}
    with catalog.read() as connection:
        for some in slices(storable_names(sources)):
            found |= {row.source: row.id for row in connection.execute(named.where(documents.c.source.in_(some)))}
    return found
