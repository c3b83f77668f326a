"""What is on its way into a generation that serves no more goes into the one that took over from it.

Documents begin again: they may be cut and embedded otherwise there. What waits for the writer only, deletes and other
descriptions, waits on for the other generation. Whoever works on what begins again learns that it was lost.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.backlogs import Amount, count_came
from ..catalog.completion import OPEN_BATCH, UNFINISHED, close_empty_batches, finish_jobs
from ..catalog.engine import Catalog
from ..catalog.tables import batches, generations, versions
from ..catalog.values import slices
from ..ids import CollectionId, TenantId

_STAGES = ("chunk", "embed", "index")
_BEGUN = ("chunking", "embedding", "indexing")
_AT_ONCE = 500
_OF_DOCUMENTS = (batches.c.stage.in_(_STAGES), batches.c.state.in_(OPEN_BATCH), batches.c.reembedding_id.is_(None))


def bring_over(connection: Connection, *, former_id: str, active_id: str, recut: bool, now: float) -> int:
    """Move what is on its way into ``former_id``; call it in the transaction that makes the other one active.

    Returns how many documents begin again. ``recut``: the other one cuts documents otherwise, so that nobody knows
    which of its chunks a trim means: it fails.
    """
    moved = 0
    found = sa.select(batches.c.id, batches.c.group_id).where(batches.c.generation_id == former_id, *_OF_DOCUMENTS)
    rows = connection.execute(found.order_by(batches.c.id).with_for_update()).all()
    for some in slices(sorted({row.group_id for row in rows})):
        moved += _begin_again(connection, some, active_id=active_id)
        if recut:
            _fail_trims(connection, some, now=now)
        _wait_on(connection, some, active_id=active_id)
        close_empty_batches(connection, some, now=now)
    return moved


def bring_stragglers_over(catalog: Catalog, *, now: float) -> int:
    """Move what came to be on its way into a generation in the moment in which another took over from it.

    Returns how many batches there were. Run every few seconds by anyone; when there is nothing, it reads a little.
    """
    active = generations.alias("active")
    here = sa.and_(active.c.collection_id == generations.c.collection_id, active.c.state == "active")
    late = sa.select(generations.c.id, generations.c.chunking, active.c.id.label("active_id"))
    late = late.add_columns(active.c.chunking.label("active_chunking"), generations.c.collection_id)
    late = late.join(active, here).where(generations.c.state.in_(("retired", "dropped")))
    late = late.where(sa.exists().where(batches.c.generation_id == generations.c.id, *_OF_DOCUMENTS))
    with catalog.read() as connection:
        rows = connection.execute(late.limit(_AT_ONCE)).all()
    for row in rows:
        with catalog.write("bring_over") as connection:
            recut = row.chunking != row.active_chunking
            bring_over(connection, former_id=row.id, active_id=row.active_id, recut=recut, now=now)
    return len(rows)


def forget_counts(connection: Connection, collection_id: CollectionId) -> None:
    """Let nobody rely on how many chunks the documents of the collection have: they were cut otherwise."""
    served = (versions.c.collection_id == collection_id, versions.c.state == "indexed")
    connection.execute(sa.update(versions).where(*served).values(chunk_count=None))


def _begin_again(connection: Connection, group_ids: Sequence[str], *, active_id: str) -> int:
    begun = sa.update(versions).where(versions.c.batch_id.in_(group_ids), versions.c.state.in_(_BEGUN))
    again: dict[str, Any] = {"state": "queued", "batch_id": None, "chunk_count": None, "generation_id": active_id}
    begun = begun.where(versions.c.action == "put").values(again)
    rows: Sequence[Row[Any]] = connection.execute(begun.returning(versions.c.tenant_id, versions.c.size_bytes)).all()
    waiting: dict[str, Amount] = defaultdict(Amount)
    for row in rows:
        waiting[row.tenant_id] += Amount(1, row.size_bytes)
    for tenant, amount in waiting.items():
        count_came(connection, TenantId(tenant), amount)
    return len(rows)


def _fail_trims(connection: Connection, group_ids: Sequence[str], *, now: float) -> None:
    lost = sa.update(versions).where(versions.c.batch_id.in_(group_ids), versions.c.state == "trimming")
    told = "the collection was cut otherwise before these chunks left: look for them again, and delete what is found"
    failed = lost.values(state="failed", stage="index", error_code="reembedded", error=told, finished_at=now)
    rows = connection.execute(failed.returning(versions.c.job_id)).all()
    finish_jobs(connection, now=now, job_ids={row.job_id for row in rows})


def _wait_on(connection: Connection, group_ids: Sequence[str], *, active_id: str) -> None:
    """Let what waits for the writer only wait for it in the active generation."""
    waits = sa.exists().where(versions.c.batch_id == batches.c.group_id, versions.c.state.in_(UNFINISHED))
    mine = (batches.c.group_id.in_(group_ids), batches.c.stage == "index", batches.c.state.in_(OPEN_BATCH))
    connection.execute(sa.update(batches).where(*mine, waits).values(generation_id=active_id))
