"""The rows of a fork: a collection, its generation and history, and a copy of each document that a version served.

It copies inside the database and touches no object. Work in Python goes with what differs between the version and the
current one of the parent, whose documents the parent's rows describe.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import Damaged, NotFound
from ..ids import JobId, ManifestVersion, TenantId, new_id
from ..segments.manifests import Manifest
from ..segments.version_changes import VersionChange, VersionChanges
from .collections import insert_collection
from .manifests import ManifestInfo, Origin, hold_manifest, record_manifest
from .tables import OF_DOCUMENT, collections, documents, generations, jobs, manifests, versions
from .tenants import hold_tenant
from .values import batched

_COPIED_AT_ONCE = 5_000  # documents


@dataclass(frozen=True)
class Copy:
    """What to copy: the documents of version ``kept``, which are those of version ``seen`` after ``changes``.

    ``first`` is the manifest of the fork, stored as ``name``. The job tells how many documents came.
    """

    kept: ManifestInfo
    seen: ManifestVersion
    changes: VersionChanges
    first: Manifest
    name: str
    job_id: JobId
    max_collections: int


@dataclass(frozen=True)
class Beginning:
    """How a collection began, as far as its first version is kept to tell: ``version`` of collection ``parent``.

    ``parent`` is None when it was deleted, or the catalog was lost since.
    """

    is_fork: bool
    parent: str | None
    version: ManifestVersion | None


def find_beginning(connection: Connection, *, tenant: TenantId, name: str) -> Beginning | None:
    """Return how the collection of that name began; None: there is none."""
    mine, theirs, parents = generations.alias("mine"), generations.alias("theirs"), collections.alias("parents")
    first = sa.and_(manifests.c.generation_id == mine.c.id, manifests.c.version == 1, manifests.c.operation == "fork")
    wanted = (
        sa.select(manifests.c.operation, manifests.c.origin_version, parents.c.name)
        .select_from(collections)
        .join(mine, sa.and_(mine.c.collection_id == collections.c.id, mine.c.state == "active"))
        .join(manifests, first, isouter=True)
        .join(theirs, theirs.c.id == manifests.c.origin_generation_id, isouter=True)
        .join(parents, parents.c.id == theirs.c.collection_id, isouter=True)
        .where(collections.c.tenant_id == tenant, collections.c.name == name)
    )
    row = connection.execute(wanted).first()
    return None if row is None else Beginning(row.operation is not None, row.name, row.origin_version)


def insert_copy(connection: Connection, copy: Copy) -> bool:
    """Insert everything; False: version ``seen`` is not the parent's current one any more, and nothing was done.

    Raises:
        NotFound: the parent was deleted. NotKept: the version is not there any more.
        AlreadyExists, LimitReached: as for any new collection.
        Damaged: the catalog lacks a document version that the manifest serves.
    """
    first, source = copy.first, copy.kept.generation_id
    hold_tenant(connection, first.tenant_id)  # before all others, as everywhere; collectors wait for it
    parent = sa.select(collections).join(generations, generations.c.collection_id == collections.c.id)
    held = parent.where(generations.c.id == source).with_for_update(of=collections, read=True, key_share=True)
    if connection.execute(held).first() is None:
        raise NotFound("the collection was deleted meanwhile")
    # Publishers wait from here on: what is indexed now is what version ``seen`` serves.
    standing = sa.select(generations).where(generations.c.id == source).with_for_update(read=True)
    generation = connection.execute(standing).mappings().one()
    hold_manifest(connection, source, copy.kept.version)
    if generation["version"] != copy.seen:
        return False
    _insert_owners(connection, copy, dict(generation))
    _copy_versions(connection, copy)
    return True


def _insert_owners(connection: Connection, copy: Copy, generation: dict[str, Any]) -> None:
    first = copy.first
    owner = {"tenant_id": first.tenant_id, "created_at": first.created_at}
    collection = {**owner, "id": first.collection_id, "name": first.collection_name}
    insert_collection(connection, collection, max_collections=copy.max_collections)
    row = generation | {
        **owner,
        "id": first.generation_id,
        "collection_id": first.collection_id,
        "state": "active",
        "manifest": copy.name,
        "version": first.version,
        "writer_epoch": first.writer_epoch,
        "next_chunk_id": first.next_chunk_id,
        "sweeps_begun": 0,
        "sweeps_ended": 0,
        "live_chunks": first.live_chunks,
        "published_at": first.created_at,
        "active_since": first.active_since,
    }
    connection.execute(sa.insert(generations).values(row))
    origin = Origin("fork", copy.kept.generation_id, copy.kept.version)
    record_manifest(connection, first, name=copy.name, origin=origin)
    job = {**owner, "id": copy.job_id, "collection_id": first.collection_id, "state": "done"}
    connection.execute(sa.insert(jobs).values(job | {"finished_at": first.created_at}))


def _copy_versions(connection: Connection, copy: Copy) -> None:
    """Copy what is indexed now, take out what the version served otherwise or not, and copy what it served instead.

    First everything out and then everything in, for what comes may have the source of what goes.
    """
    source = versions.c.collection_id == _parent(copy)
    for low, high in _ranges(connection, copy):
        between = sa.and_(versions.c.document_id > low, versions.c.document_id <= high)
        _insert(connection, copy, source, between, versions.c.state == "indexed")
    mine = versions.c.collection_id == copy.first.collection_id
    # Without regard to what the current version serves of them: it is nothing where all chunks were deleted.
    for some in batched(copy.changes.document_ids()):
        connection.execute(sa.delete(versions).where(mine, versions.c.document_id.in_(some)))
        connection.execute(
            sa.delete(documents).where(documents.c.collection_id == copy.first.collection_id, documents.c.id.in_(some))
        )
    for changes in batched(copy.changes):
        if served := [one for one in changes if one.after is not None]:
            _copy_served(connection, copy, served)


def _copy_served(connection: Connection, copy: Copy, served: Sequence[VersionChange]) -> None:
    mine = versions.c.collection_id == copy.first.collection_id
    wanted = [(one.document_id, one.after) for one in served]
    # The ids alone too: SQLite finds no pairs by an index, and would look at every version there is.
    theirs = versions.c.document_id.in_([document_id for document_id, _ in wanted])
    pairs = sa.and_(theirs, sa.tuple_(versions.c.document_id, versions.c.number).in_(wanted))
    _insert(connection, copy, versions.c.collection_id == _parent(copy), pairs)
    copied = connection.execute(sa.select(versions.c.document_id, versions.c.content_hash).where(mine, pairs))
    hashes = {row.document_id: row.content_hash for row in copied}
    if not all(one.is_of(hashes.get(one.document_id, b"")) for one in served) or len(hashes) != len(served):
        lacking = f"the catalog lacks documents of version {copy.kept.version}"
        raise Damaged(f"{lacking}: restore catalog and objects from one backup")
    counted = sa.update(versions).where(mine, versions.c.document_id == sa.bindparam("document"))
    rows = [{"document": one.document_id, "count": one.chunks} for one in served]
    connection.execute(counted.values(chunk_count=sa.bindparam("count")), rows)


def _ranges(connection: Connection, copy: Copy) -> Iterator[tuple[str, str]]:
    """Yield ranges of document ids, above the first one and up to the second, that take in all of the parent's.

    A database holds what it copies from a table into the same in its memory.
    """
    low = ""
    mine = (documents.c.tenant_id == copy.first.tenant_id, documents.c.collection_id == _parent(copy))
    while True:
        some = sa.select(documents.c.id).where(*mine, documents.c.id > low).order_by(documents.c.id)
        high = connection.scalar(sa.select(sa.func.max(some.limit(_COPIED_AT_ONCE).subquery().c.id)))
        if high is None:
            return
        yield low, high
        low = high


def _parent(copy: Copy) -> sa.ScalarSelect[Any]:
    """Return the collection whose version is copied: documents are the collection's, whichever generation serves it."""
    of_generation = generations.c.id == copy.kept.generation_id
    return sa.select(generations.c.collection_id).where(of_generation).scalar_subquery()


def _insert(connection: Connection, copy: Copy, *conditions: sa.ColumnElement[bool]) -> None:
    """Copy the document versions that meet the conditions, with their documents."""
    place = {"collection_id": sa.literal(copy.first.collection_id)}
    found = (OF_DOCUMENT, *conditions)
    _insert_from(connection, documents, {**place, "newest": versions.c.number, "highest": versions.c.number}, *found)
    numbered = sa.cast(sa.func.row_number().over(order_by=versions.c.document_id), sa.String)
    values: dict[str, sa.ColumnElement[Any]] = {
        **place,
        "id": sa.literal(new_id("ver") + "_") + numbered,
        "generation_id": sa.literal(copy.first.generation_id),
        "job_id": sa.literal(copy.job_id),
        "state": sa.literal("indexed"),
        "batch_id": sa.null(),
        "indexed_version": sa.literal(copy.first.version),
    }
    _insert_from(connection, versions, values, *found)


def _insert_from(
    connection: Connection,
    table: sa.Table,
    values: dict[str, sa.ColumnElement[Any]],
    *conditions: sa.ColumnElement[bool],
) -> None:
    columns = [values.get(column.name, column) for column in table.c]
    found = sa.select(*columns).where(*conditions)
    names = [column.name for column in table.c]
    connection.execute(sa.insert(table).from_select(names, found, include_defaults=False))
