"""Some of the latest searches of each collection, for a re-embedding to be judged by. Text of a tenant: never logged.

A search is kept once, with how often it was asked. Those by vector are only counted: another model has other vectors.
Whatever is in the way of recording loses what was to be recorded, and holds up nobody.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from ..ids import CollectionId, TenantId
from .engine import Catalog
from .tables import collections, recorded_queries, tenants
from .values import slices

AT_ONCE = 400  # rows of two parameters: SQLite allows 999 of those in its older builds
IS_TEXT = recorded_queries.c.text.is_not(None)


@dataclass(frozen=True)
class AskedQuery:
    """A search that was answered. ``text``: None, it was by vector; ``filter``: as JSON has it, None without one."""

    text: str | None
    filter: Any = None


@dataclass(frozen=True)
class RecordedQuery:
    """A search, how often it was asked since ``first_at``, and when last."""

    text: str
    filter: Any
    times: int
    first_at: float
    last_at: float


@dataclass(frozen=True)
class RecordedQueries:
    """Newest first. ``by_vector``: how many searches there were by vector, of which nothing else is known."""

    queries: list[RecordedQuery]
    by_vector: int


def record_queries(
    catalog: Catalog, asked: Mapping[tuple[TenantId, CollectionId], Sequence[AskedQuery]], *, keep: int, now: float
) -> None:
    """Record searches of several collections, and forget all but the newest ``keep`` texts of each of them.

    Left out is what belongs to a tenant who wants none recorded, to a collection that is gone, and to what somebody
    else holds at this moment. Raises Unavailable.
    """
    if not asked:
        return
    with catalog.write("record_queries") as connection:
        allowed = _allowed(connection, {tenant for tenant, _ in asked})
        here = _held(connection, {collection for tenant, collection in asked if tenant in allowed})
        rows: dict[tuple[str, bytes], dict[str, Any]] = {}
        for (tenant, collection), queries in asked.items():
            for query in queries if tenant in allowed and collection in here else ():
                row = _row(query, tenant=tenant, collection_id=collection, now=now)
                row["times"] += rows.get((collection, row["digest"]), {"times": 0})["times"]
                rows[collection, row["digest"]] = row
        if rows:
            _upsert(connection, [rows[key] for key in sorted(rows)])
            _forget_oldest(connection, {collection for collection, _ in rows}, keep=keep)


def read_recorded(catalog: Catalog, collection_id: CollectionId, *, limit: int) -> RecordedQueries:
    """Return the newest ``limit`` texts that were searched for in a collection."""
    mine = recorded_queries.c.collection_id == collection_id
    newest = (recorded_queries.c.last_at.desc(), recorded_queries.c.digest)
    with catalog.read() as connection:
        rows = connection.execute(sa.select(recorded_queries).where(mine, IS_TEXT).order_by(*newest).limit(limit)).all()
        by_vector = connection.scalar(sa.select(recorded_queries.c.times).where(mine, ~IS_TEXT))
    return RecordedQueries(
        [RecordedQuery(row.text, row.filter, row.times, row.first_at, row.last_at) for row in rows], by_vector or 0
    )


def forget_recorded(catalog: Catalog, collection_id: CollectionId) -> int:
    """Forget every recorded search of a collection, and return how many texts those were."""
    mine = recorded_queries.c.collection_id == collection_id
    with catalog.write("forget_recorded") as connection:
        gone = connection.execute(sa.delete(recorded_queries).where(mine).returning(recorded_queries.c.text))
        return sum(text is not None for text in gone.scalars())


def forget_recorded_before(catalog: Catalog, before: float) -> int:
    """Forget what was last asked before that time, in all collections, and return how many rows those were."""
    old = recorded_queries.c.last_at < before
    with catalog.read() as connection:
        if connection.scalar(sa.select(sa.exists().where(old))) is not True:
            return 0
    with catalog.write("forget_recorded_before") as connection:
        return _delete(connection, sa.select(*_key()).where(old))


def _key() -> tuple[sa.Column[Any], sa.Column[Any]]:
    return recorded_queries.c.collection_id, recorded_queries.c.digest


def _allowed(connection: Connection, wanted: set[TenantId]) -> set[str]:
    """Return those tenants whose searches may be recorded; that stays so until the commit."""
    may = sa.select(tenants.c.id).where(tenants.c.id.in_(wanted), tenants.c.record_queries.is_(True))
    return set(connection.scalars(may.order_by(tenants.c.id).with_for_update(read=True, skip_locked=True)))


def _held(connection: Connection, wanted: set[CollectionId]) -> set[str]:
    """Return those collections that are there; they stay so until the commit."""
    here = sa.select(collections.c.id).where(collections.c.id.in_(wanted)).order_by(collections.c.id)
    return set(connection.scalars(here.with_for_update(read=True, key_share=True, skip_locked=True)))


def _row(query: AskedQuery, *, tenant: TenantId, collection_id: CollectionId, now: float) -> dict[str, Any]:
    told = "" if query.text is None else json.dumps([query.text, query.filter], sort_keys=True)
    return {
        "collection_id": collection_id,
        "digest": hashlib.blake2b(told.encode(), digest_size=16).digest(),
        "tenant_id": tenant,
        "text": query.text,
        "filter": None if query.text is None else query.filter,
        "times": 1,
        "first_at": now,
        "last_at": now,
    }


def _upsert(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    table = recorded_queries
    insert = sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
    again = {"times": table.c.times + insert.excluded.times, "last_at": insert.excluded.last_at}
    connection.execute(insert.on_conflict_do_update(index_elements=list(_key()), set_=again), rows)


def _forget_oldest(connection: Connection, ids: set[str], *, keep: int) -> None:
    newest = (recorded_queries.c.last_at.desc(), recorded_queries.c.digest)
    place = sa.func.row_number().over(partition_by=recorded_queries.c.collection_id, order_by=newest).label("place")
    placed = sa.select(*_key(), place).where(recorded_queries.c.collection_id.in_(ids), IS_TEXT).subquery("placed")
    _delete(connection, sa.select(placed.c.collection_id, placed.c.digest).where(placed.c.place > keep))


def _delete(connection: Connection, wanted: sa.Select[Any]) -> int:
    """Delete those of the rows that nobody else holds: to wait for one could be to deadlock."""
    key = sa.tuple_(*_key())
    held = sa.select(*_key()).where(key.in_(wanted)).with_for_update(skip_locked=True)
    found = [tuple(row) for row in connection.execute(held)]
    deletes = (sa.delete(recorded_queries).where(key.in_(some)) for some in slices(found, AT_ONCE))
    return sum(connection.execute(delete).rowcount for delete in deletes)
