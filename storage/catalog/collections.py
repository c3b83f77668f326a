"""Collections: made, listed, changed and deleted; each with the generation that is searched."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..errors import AlreadyExists, LimitReached, NotFound
from ..ids import CollectionId, TenantId, checked_name, new_id
from ..limits import MAX_COLLECTIONS_PER_TENANT
from .backlogs import count_left, waiting_in
from .engine import Catalog
from .generations import GenerationInfo, generation_columns, generation_of
from .schedules import delete_schedules
from .statements import insert_if_absent
from .tables import (
    GONE,
    IS_QUEUED,
    OF_DOCUMENT,
    batches,
    collections,
    documents,
    generations,
    idempotency_keys,
    jobs,
    judgements,
    manifests,
    reader_leases,
    recorded_queries,
    reembeddings,
    tags,
    versions,
)
from .tenants import hold_collection_count, require_tenant
from .values import slices

Metric = Literal["cosine", "dot", "l2"]
Quantization = Literal["none", "int8"]


@dataclass(frozen=True)
class CollectionInfo:
    """A collection and its active generation.

    ``documents`` counts them by the state of their newest version; those that were deleted or expired are not counted.
    """

    id: CollectionId
    tenant_id: TenantId
    name: str
    created_at: float
    generation: GenerationInfo
    documents: Mapping[str, int]
    keep_versions: int | None = None  # retention of its own; None: that of the installation
    keep_s: float | None = None


def shard_of(tenant: TenantId, *, shards: int) -> int:
    """Return the shard of a tenant, the same on every machine; all its generations have the same writer."""
    digest = hashlib.blake2b(tenant.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


def highest_shard(catalog: Catalog) -> int | None:
    """Return the highest shard that a generation was made in; None without any."""
    with catalog.read() as connection:
        highest: int | None = connection.scalar(sa.select(sa.func.max(generations.c.shard)))
        return highest


def create_collection(  # noqa: PLR0913  (what a generation holds is many things)
    catalog: Catalog,
    *,
    tenant: TenantId,
    name: str,
    model: str,
    dimensions: int,
    metric: Metric,
    quantization: Quantization = "none",
    chunking: Mapping[str, Any],
    shards: int,
    now: float,
    max_collections: int = MAX_COLLECTIONS_PER_TENANT,
) -> CollectionInfo:
    """Make a collection with one empty, active generation.

    Raises:
        InvalidName: nothing may be named so.
        NotFound: there is no such tenant.
        AlreadyExists: the tenant has a collection of that name.
        LimitReached: the tenant has ``max_collections`` already.
    """
    collection_id = CollectionId(new_id("col"))
    row = {"id": collection_id, "tenant_id": tenant, "name": checked_name("collection", name), "created_at": now}
    generation = {
        "id": new_id("gen"),
        "tenant_id": tenant,
        "collection_id": collection_id,
        "state": "active",
        "model": model,
        "dimensions": dimensions,
        "metric": metric,
        "quantization": quantization,
        "chunking": dict(chunking),
        "shard": shard_of(tenant, shards=shards),
        "active_since": now,
        "created_at": now,
    }
    with catalog.write("create_collection") as connection:
        require_tenant(connection, tenant)
        insert_collection(connection, row, max_collections=max_collections)
        connection.execute(sa.insert(generations).values(generation))
    return get_collection(catalog, tenant=tenant, name=name)


def insert_collection(connection: Connection, row: Mapping[str, Any], *, max_collections: int) -> None:
    """Insert the row of a new collection. The caller adds its generation, and commits soon: others wait to make theirs.

    Raises:
        AlreadyExists: the tenant has a collection of that name.
        LimitReached: the tenant has ``max_collections`` already.
    """
    tenant = TenantId(row["tenant_id"])
    hold_collection_count(connection, tenant)  # two that count at the same time would both find room for one
    if not insert_if_absent(connection, collections, row):
        raise AlreadyExists(f"collection {row['name']!r} exists already")
    counted = sa.select(sa.func.count()).select_from(collections).where(collections.c.tenant_id == tenant)
    if connection.scalars(counted).one() > max_collections:
        raise LimitReached(
            f"tenant {tenant!r} has {max_collections:,} collections, as many as limits.max_collections_per_tenant "
            "allows: delete one, or raise that setting"
        )


def get_collection(catalog: Catalog, *, tenant: TenantId, name: str, counted: bool = True) -> CollectionInfo:
    """Return one collection. Raises NotFound.

    ``counted=False`` leaves ``documents`` empty: for searches, which need the generation and no look at every document.
    """
    with catalog.read() as connection:
        row = connection.execute(_collection_rows(tenant).where(collections.c.name == name)).first()
        if row is None:
            raise NotFound(f"there is no collection {name!r}")
        info = _collection(row)
        return _counted(connection, [info])[0] if counted else info


def list_collections(catalog: Catalog, *, tenant: TenantId, counted: bool = True) -> list[CollectionInfo]:
    """Return the tenant's collections, by name."""
    with catalog.read() as connection:
        rows = connection.execute(_collection_rows(tenant).order_by(collections.c.name)).all()
        found = [_collection(row) for row in rows]
        return _counted(connection, found) if counted else found


def change_retention(
    catalog: Catalog, *, tenant: TenantId, name: str, values: Mapping[str, float | None]
) -> CollectionInfo:
    """Set ``keep_versions`` or ``keep_s`` of a collection; None: as the installation has it. Raises NotFound."""
    assert values.keys() <= {"keep_versions", "keep_s"}
    mine = (collections.c.tenant_id == tenant, collections.c.name == name)
    if values:
        with catalog.write("change_retention") as connection:
            connection.execute(sa.update(collections).where(*mine).values(dict(values)))
    return get_collection(catalog, tenant=tenant, name=name)


def delete_collection(catalog: Catalog, *, tenant: TenantId, name: str) -> None:
    """Forget a collection and everything in it; its objects become garbage. Raises NotFound.

    Workers that hold its batches get Conflict when they finish, a writer that publishes it gets Fenced.
    """
    with catalog.write("delete_collection") as connection:
        wanted = sa.select(collections.c.id).where(collections.c.tenant_id == tenant, collections.c.name == name)
        collection_id = connection.scalar(wanted.with_for_update())  # nobody can add rows below it from here on
        if collection_id is None:
            raise NotFound(f"there is no collection {name!r}")
        its_jobs = sa.select(jobs.c.id).where(jobs.c.collection_id == collection_id).order_by(jobs.c.id)
        connection.execute(its_jobs.with_for_update()).all()  # before batches and versions, as everywhere
        delete_schedules(connection, collection_id)
        mine = sa.select(generations.c.id).where(generations.c.collection_id == collection_id)
        left = waiting_in(connection, sa.and_(IS_QUEUED, versions.c.collection_id == collection_id))
        for table in (batches, tags, reader_leases, manifests):
            connection.execute(sa.delete(table).where(table.c.generation_id.in_(mine)))
        for table in (
            reembeddings,
            versions,
            documents,
            idempotency_keys,
            jobs,
            recorded_queries,
            judgements,
            generations,
        ):
            connection.execute(sa.delete(table).where(table.c.collection_id == collection_id))
        connection.execute(sa.delete(collections).where(collections.c.id == collection_id))
        count_left(connection, left)


def require_collection(connection: Connection, collection_id: CollectionId, *, tenant: TenantId) -> None:
    """Return if the collection exists and is the tenant's. Raises NotFound."""
    owned = sa.select(collections.c.id).where(collections.c.id == collection_id, collections.c.tenant_id == tenant)
    if connection.scalar(owned) is None:
        raise NotFound(f"there is no collection {collection_id!r}")


def _collection_rows(tenant: TenantId) -> sa.Select[Any]:
    own = ("id", "name", "created_at", "keep_versions", "keep_s")
    columns = (*(collections.c[name] for name in own), *generation_columns())
    active = sa.and_(generations.c.collection_id == collections.c.id, generations.c.state == "active")
    return sa.select(*columns).join(generations, active).where(collections.c.tenant_id == tenant)


def _collection(row: Row[Any]) -> CollectionInfo:
    return CollectionInfo(
        id=CollectionId(row.id),
        tenant_id=TenantId(row.tenant_id),
        name=row.name,
        created_at=row.created_at,
        generation=generation_of(row),
        documents={},
        keep_versions=row.keep_versions,
        keep_s=row.keep_s,
    )


def _counted(connection: Connection, found: Sequence[CollectionInfo]) -> list[CollectionInfo]:
    newest = sa.and_(OF_DOCUMENT, versions.c.number == documents.c.newest)
    counts: dict[str, dict[str, int]] = {info.id: {} for info in found}
    for some in slices([info.id for info in found]):
        rows = connection.execute(
            sa.select(documents.c.collection_id, versions.c.state, sa.func.count())
            .join(versions, newest)
            .where(documents.c.collection_id.in_(some), versions.c.state.not_in(GONE))
            .group_by(documents.c.collection_id, versions.c.state)
        )
        for collection_id, state, count in rows:
            counts[collection_id][state] = count
    return [replace(info, documents=counts[info.id]) for info in found]
