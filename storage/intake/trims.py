"""Accepts the removal of some chunks of documents, which makes no version of them: they only lose these chunks.

A chunk is named by the version that brought its text and its place in it, which stays when the document is described
anew. Nothing is looked up in the index here (``selections.py``).
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.engine import Catalog
from ..catalog.tables import documents
from ..catalog.values import slices
from ..errors import Conflict
from ..ids import CollectionId, GenerationId, JobId, TenantId
from .acceptance import Target, empty_version, hold_documents, insert_versions, open_writers_batch, record_job
from .removals import AT_ONCE


class LocatedChunk(NamedTuple):
    """A chunk as its place: ``text_version_id`` is the version that brought the text of its document."""

    document_id: str
    text_version_id: str
    ordinal: int


def remove_chunks(
    catalog: Catalog,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    generation_id: GenerationId,
    chunks: Collection[LocatedChunk],
    now: float,
    job_id: JobId | None = None,
) -> JobId:
    """Log that these chunks leave, and nothing else of their documents, as one job; returns it.

    A version of the document that is indexed before or later keeps all its own chunks. Raises as `remove_documents`,
    and Conflict: another generation serves by now.
    """
    target = Target(tenant, collection_id, generation_id, now)
    ordinals: dict[tuple[str, str], set[int]] = defaultdict(set)
    for chunk in chunks:
        ordinals[chunk.document_id, chunk.text_version_id].add(chunk.ordinal)
    for some in slices(sorted(ordinals), AT_ONCE) if ordinals else [()]:
        chosen = documents.c.id.in_({document for document, _ in some}) if some else sa.false()
        with catalog.write("trim") as connection:
            found = hold_documents(connection, target, chosen, job_id=job_id)
            if found.target.generation_id != generation_id:  # its chunks may be cut otherwise
                raise Conflict("the collection was re-embedded meanwhile: look for the chunks again")
            here = {row.id for row in found.rows}
            trims = [
                (document, {"text_version": text_version, "ordinals": sorted(ordinals[document, text_version])})
                for document, text_version in some
                if document in here
            ]
            job_id = record_job(connection, target, job_id, opened=bool(trims), unchanged=0)
            _log_trims(connection, found.target, trims, job_id=job_id)
    assert job_id is not None
    return job_id


def _log_trims(
    connection: Connection, target: Target, trims: Sequence[tuple[str, dict[str, Any]]], *, job_id: JobId
) -> None:
    if not trims:
        return
    batch_id = open_writers_batch(connection, target, document_count=len(trims))
    rows = [
        {
            **empty_version(target, document, action="trim", state="trimming", job_id=job_id, batch_id=batch_id),
            "details": details,
        }
        for document, details in trims
    ]
    insert_versions(connection, rows)
