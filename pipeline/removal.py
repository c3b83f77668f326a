"""One removal from what was asked to what is logged: resolve it in a snapshot, then hand ids to the ledger.

The catalog and the snapshots are passed in; an interface only translates what comes in and goes out.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.storage.intake.removals import remove_documents, survey_documents
from penstock.storage.intake.selections import locate_chunks, select_documents
from penstock.storage.intake.trims import remove_chunks

from .errors import InvalidQuery

if TYPE_CHECKING:
    from penstock.storage.catalog.collections import CollectionInfo
    from penstock.storage.catalog.engine import Catalog
    from penstock.storage.ids import JobId
    from penstock.storage.search.snapshots import SnapshotCache
    from penstock.storage.segments.fields import Filter


@dataclass(frozen=True)
class Removal:
    """What was logged, or after a dry run would be. ``job_id`` is None after a dry run.

    ``sample``: id and source of a few documents that leave; ``missing``: a few of the names that were not found.
    """

    job_id: "JobId | None"
    deleted: int
    already_deleted: int
    not_found: int
    sample: Sequence[tuple[str, str]]
    missing: Sequence[str]


@dataclass(frozen=True)
class ChunkRemoval:
    job_id: "JobId"
    deleted: int
    not_found: int


def delete_documents(
    catalog: "Catalog",
    snapshots: "SnapshotCache",
    collection: "CollectionInfo",
    *,
    document_ids: Collection[str] | None = None,
    sources: Collection[str] | None = None,
    filter: "Filter | None" = None,  # noqa: A002  (the word of the grammar)
    min_version: int = 0,
    timeout_s: float = 5.0,
    dry_run: bool = False,
    now: float,
) -> Removal:
    """Log the removal of the documents with these ids and these sources, or of those that a filter accepts now.

    ``collection``: as it is now; its version is the least that a filter is resolved in.

    Raises:
        InvalidQuery: neither names nor a filter say which documents, or both do.
        FilterMismatch, NotFound, NotYet, Damaged, Unavailable: as they come. When a part was logged by then, the
            same request again does the rest.
    """
    named = document_ids is not None or sources is not None
    if named == (filter is not None):
        raise InvalidQuery("say which documents: by ids, by sources, by both, or by a filter alone", param="ids")
    if filter is not None:
        least = max(min_version, collection.generation.version)
        with snapshots.get(
            collection.tenant_id, collection.generation.id, min_version=least, timeout_s=timeout_s
        ) as snapshot:
            document_ids = select_documents(snapshot, filter, now=now).document_ids
    ids, names, tenant = document_ids or (), sources or (), collection.tenant_id
    survey = survey_documents(catalog, tenant=tenant, collection_id=collection.id, document_ids=ids, sources=names)
    if dry_run:
        return Removal(None, survey.deleted, survey.already_deleted, survey.not_found, survey.sample, survey.missing)
    done = remove_documents(
        catalog,
        tenant=tenant,
        collection_id=collection.id,
        generation_id=collection.generation.id,
        document_ids=ids,
        sources=names,
        now=now,
    )
    return Removal(done.job_id, done.deleted, done.already_deleted, done.not_found, survey.sample, survey.missing)


def delete_chunks(
    catalog: "Catalog",
    snapshots: "SnapshotCache",
    collection: "CollectionInfo",
    *,
    chunk_ids: Collection[int],
    min_version: int = 0,
    timeout_s: float = 5.0,
    now: float,
) -> ChunkRemoval:
    """Log the removal of the chunks with these ids; those that no document has any more are not found.

    Raises:
        NotFound, NotYet, Damaged, Unavailable: as they come.
    """
    generation = collection.generation
    least = max(min_version, generation.version)
    with snapshots.get(collection.tenant_id, generation.id, min_version=least, timeout_s=timeout_s) as snapshot:
        located = locate_chunks(snapshot, chunk_ids)
    job_id = remove_chunks(
        catalog,
        tenant=collection.tenant_id,
        collection_id=collection.id,
        generation_id=generation.id,
        chunks=located,
        now=now,
    )
    return ChunkRemoval(job_id, deleted=len(located), not_found=len({*chunk_ids}) - len(located))
