"""One removal from what was asked to what is logged: resolve it in a snapshot, then hand ids to the ledger.

The catalog and the snapshots are passed in; an interface only translates what comes in and goes out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from penstock.storage.intake.removals import remove_documents, survey_documents
from penstock.storage.intake.selections import locate_chunks, select_documents
from penstock.storage.intake.trims import remove_chunks

from .errors import InvalidQuery

if TYPE_CHECKING:
    from penstock.storage.catalog.collections import CollectionInfo
    from penstock.storage.catalog.engine import Catalog
    from penstock.storage.ids import CollectionId, JobId, TenantId
    from penstock.storage.search.snapshots import SnapshotCache
    from penstock.storage.segments.fields import Filter


@dataclass(frozen=True)
class Meant:
    """Which documents to delete: those with these ids and these sources, or those that a filter accepts now.

    ``if_numbers``: by source, the number that the newest version must still have; see `remove_documents`. ``with_ids``:
    a dry run names all of them.
    """

    document_ids: Collection[str] | None = None
    sources: Collection[str] | None = None
    if_numbers: Mapping[str, int] | None = None
    filter: "Filter | None" = None
    with_ids: bool = False


@dataclass(frozen=True)
class Removal:
    """What was logged, or after a dry run would be. ``job_id`` is None after a dry run.

    ``sample``: id and source of a few documents that leave; ``stayed``: of those that ``changed``; ``missing``: a few
    of the names that were not found.
    """

    job_id: "JobId | None"
    deleted: int
    already_deleted: int
    not_found: int
    sample: Sequence[tuple[str, str]]
    missing: Sequence[str]
    changed: int
    stayed: Sequence[tuple[str, str]]
    ids: Sequence[str] | None = None


@dataclass(frozen=True)
class ChunkRemoval:
    job_id: "JobId"
    deleted: int
    not_found: int


def delete_documents(
    catalog: "Catalog",
    snapshots: "SnapshotCache",
    collection: "CollectionInfo",
    meant: Meant,
    *,
    min_version: int = 0,
    timeout_s: float = 5.0,
    dry_run: bool = False,
    now: float,
) -> Removal:
    """Log the removal of the documents that are meant.

    ``collection``: as it is now; its version is the least that a filter is resolved in.

    Raises:
        InvalidQuery: neither names nor a filter say which documents, or both do; or a number has no source.
        FilterMismatch, NotFound, NotYet, Damaged, Unavailable: as they come. When a part was logged by then, the
            same request again does the rest.
    """
    _check(meant)
    ids = meant.document_ids or ()
    if meant.filter is not None:
        least = max(min_version, collection.generation.version)
        with snapshots.get(
            collection.tenant_id, collection.generation.id, min_version=least, timeout_s=timeout_s
        ) as snapshot:
            ids = select_documents(snapshot, meant.filter, now=now).document_ids
    chosen: _Chosen = {
        "tenant": collection.tenant_id,
        "collection_id": collection.id,
        "document_ids": ids,
        "sources": meant.sources or (),
        "if_numbers": meant.if_numbers,
    }
    survey = survey_documents(catalog, **chosen, with_ids=dry_run and meant.with_ids)
    if dry_run:
        counts = (survey.deleted, survey.already_deleted, survey.not_found)
        named = survey.ids if meant.with_ids else None
        return Removal(None, *counts, survey.sample, survey.missing, survey.changed, survey.stayed, named)
    done = remove_documents(catalog, **chosen, generation_id=collection.generation.id, now=now)
    counts = (done.deleted, done.already_deleted, done.not_found)
    return Removal(done.job_id, *counts, survey.sample, survey.missing, done.changed, done.stayed)


class _Chosen(TypedDict):
    """What a survey and a removal are both told."""

    tenant: "TenantId"
    collection_id: "CollectionId"
    document_ids: Collection[str]
    sources: Collection[str]
    if_numbers: Mapping[str, int] | None


def _check(meant: Meant) -> None:
    named = meant.document_ids is not None or meant.sources is not None
    if named == (meant.filter is not None):
        raise InvalidQuery("say which documents: by ids, by sources, by both, or by a filter alone", param="ids")
    if unnamed := set(meant.if_numbers or ()) - set(meant.sources or ()):
        raise InvalidQuery(f"there is a version of {min(unnamed)!r}, which is not in 'sources'", param="if_versions")


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
