"""Lists of dead documents: what a query asks for, and the page that answers it."""

from typing import Any

from penstock.pipeline.filters import parse_filter
from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.engine import Catalog
from penstock.storage.ids import DocumentId, JobId
from penstock.storage.intake.dead import DeadSelection, list_dead

from ..errors import Refused
from . import answers
from .queries import DocumentsQuery

ONLY_OF_DEAD = ("job_id", "error_code", "stage", "filter")


def asks_for_dead(query: DocumentsQuery) -> bool:
    """Say whether only dead documents are meant. Raises Refused when something is asked that only they can answer."""
    given = [name for name in ONLY_OF_DEAD if getattr(query, name) is not None]
    if not given:
        return query.state == "failed" and query.source is None and not query.prefix
    if query.state not in (None, "failed"):
        raise Refused(f"{given[0]!r} is told of dead documents only: ask with state=failed", param=given[0])
    if query.source is not None:
        raise Refused("'source' names one document already: leave the other conditions out", param="source")
    if query.prefix:
        raise Refused(f"'prefix' cannot be combined with {given[0]!r}: leave one out", param="prefix")
    return True


def dead_page(
    catalog: Catalog, collection: CollectionInfo, query: DocumentsQuery, *, after: DocumentId | None
) -> dict[str, Any]:
    """Return one page of dead documents. It may be short before the last one, when a filter accepts few."""
    found = list_dead(
        catalog,
        tenant=collection.tenant_id,
        collection_id=collection.id,
        selection=DeadSelection(
            job_id=None if query.job_id is None else JobId(query.job_id),
            error_code=query.error_code,
            stage=query.stage,
            filter=None if query.filter is None else parse_filter(query.filter),
        ),
        after=after,
        limit=query.limit,
    )
    last = found.documents[-1].id if found.documents else None
    return {
        "data": [answers.document(info) for info in found.documents],
        "has_more": found.next_after is not None,
        "last_id": found.next_after or last,
    }
