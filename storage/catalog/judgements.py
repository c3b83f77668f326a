"""Judgements: how well a document answers a question, by people who know. A re-embedding is measured by them."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from ..errors import LimitReached, NotFound
from ..ids import CollectionId, TenantId
from ..limits import MAX_JUDGEMENTS
from .engine import Catalog
from .tables import collections as known_collections
from .tables import documents, judgements
from .values import slices


@dataclass(frozen=True)
class Judgement:
    """``grade``: 0, does not answer, and more the better it does. The document is named by its ``source`` or its id."""

    query: str
    grade: int
    source: str | None = None
    document_id: str | None = None


@dataclass(frozen=True)
class LoadedJudgements:
    """What a load left: how many there are in all, of how many questions, and which of those loaded name no document.

    ``unknown``: places in what was loaded, in order.
    """

    judgements: int
    queries: int
    unknown: Sequence[int]


def load_judgements(
    catalog: Catalog,
    given: Sequence[Judgement],
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    now: float,
    replace: bool = False,
) -> LoadedJudgements:
    """Keep judgements, all or none; the last one of a question and a document counts.

    ``replace``: forget those that were there before. Twice is harmless.

    Raises:
        NotFound: the tenant has no such collection.
        LimitReached: there would be more than `MAX_JUDGEMENTS`.
    """
    rows = {_digest(one): _row(one, tenant=tenant, collection_id=collection_id, now=now) for one in given}
    mine = judgements.c.collection_id == collection_id
    with catalog.write("load_judgements") as connection:
        _hold_collection(connection, collection_id, tenant=tenant)
        if replace:
            connection.execute(sa.delete(judgements).where(mine))
        if rows:
            _upsert(connection, list(rows.values()))
        found = connection.execute(
            sa.select(sa.func.count(), sa.func.count(judgements.c.query.distinct())).where(mine)
        ).one()
        if found[0] > MAX_JUDGEMENTS:
            raise LimitReached(
                f"the collection would have {found[0]:,} judgements, and {MAX_JUDGEMENTS:,} may be kept: load fewer, "
                "or replace those that are there"
            )
        unknown = _unknown(connection, given, collection_id=collection_id)
    return LoadedJudgements(found[0], found[1], unknown)


def list_judgements(
    catalog: Catalog, collection_id: CollectionId, *, after: str | None = None, limit: int = MAX_JUDGEMENTS
) -> list[tuple[str, Judgement]]:
    """Return judgements with their ids, in an order of no meaning, from behind the id ``after``."""
    wanted = sa.select(judgements).where(judgements.c.collection_id == collection_id)
    if after is not None:
        wanted = wanted.where(judgements.c.digest > bytes.fromhex(after))
    with catalog.read() as connection:
        rows = connection.execute(wanted.order_by(judgements.c.digest).limit(limit)).all()
    return [(row.digest.hex(), Judgement(row.query, row.grade, row.source, row.document_id)) for row in rows]


def judged_queries(catalog: Catalog, collection_id: CollectionId) -> dict[str, list[Judgement]]:
    """Return all judgements of a collection by their questions, in an order that never changes."""
    found: defaultdict[str, list[Judgement]] = defaultdict(list)
    for _, judgement in list_judgements(catalog, collection_id):
        found[judgement.query].append(judgement)
    return dict(found)


def clear_judgements(catalog: Catalog, collection_id: CollectionId) -> int:
    """Forget every judgement of a collection, and return how many those were."""
    with catalog.write("clear_judgements") as connection:
        return connection.execute(sa.delete(judgements).where(judgements.c.collection_id == collection_id)).rowcount


def _digest(one: Judgement) -> bytes:
    told = json.dumps([one.query, one.source, one.document_id])
    return hashlib.blake2b(told.encode(), digest_size=16).digest()


def _row(one: Judgement, *, tenant: TenantId, collection_id: CollectionId, now: float) -> dict[str, Any]:
    own = {"query": one.query, "source": one.source, "document_id": one.document_id, "grade": one.grade}
    return {"collection_id": collection_id, "digest": _digest(one), "tenant_id": tenant, "created_at": now, **own}


def _hold_collection(connection: Connection, collection_id: CollectionId, *, tenant: TenantId) -> None:
    """Let nobody delete the collection, or load judgements of it, until the commit. Raises NotFound."""
    mine = (known_collections.c.id == collection_id, known_collections.c.tenant_id == tenant)
    wanted = sa.select(known_collections.c.id).where(*mine).with_for_update(key_share=True)
    if connection.scalar(wanted) is None:
        raise NotFound(f"there is no collection {collection_id!r}")


def _upsert(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    insert = sqlite.insert(judgements) if connection.dialect.name == "sqlite" else postgresql.insert(judgements)
    key = [judgements.c.collection_id, judgements.c.digest]
    changed = {"grade": insert.excluded.grade, "created_at": insert.excluded.created_at}
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=changed), rows)


def _unknown(connection: Connection, given: Sequence[Judgement], *, collection_id: CollectionId) -> list[int]:
    known: set[str] = set()
    for column, named in (
        (documents.c.source, {one.source for one in given if one.source is not None}),
        (documents.c.id, {one.document_id for one in given if one.document_id is not None}),
    ):
        for some in slices(sorted(named)):
            wanted = sa.select(column).where(documents.c.collection_id == collection_id, column.in_(some))
            known.update(connection.scalars(wanted))
    return [place for place, one in enumerate(given) if (one.source or one.document_id) not in known]
