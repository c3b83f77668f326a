"""The join of a group: when its last embed batch is over, its documents wait for the index, as one batch."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.statements import insert_absent
from ..catalog.tables import IS_EMBEDDING, batches, versions
from ..catalog.values import slices
from ..ids import BatchId

_OVER = ("done", "dead")


# Statements that run while others wait are made once: to make one takes longer than to run it.
_GROUPS = sa.bindparam("groups", type_=sa.String, expanding=True)


def _complete() -> sa.Select[Any]:
    over = sa.func.sum(sa.case((batches.c.state.in_(_OVER), 0), else_=1)) == 0
    key = (batches.c.group_id, batches.c.tenant_id, batches.c.generation_id, batches.c.shard, batches.c.priority)
    sums = (sa.func.sum(batches.c.chunk_count).label("chunks"), sa.func.sum(batches.c.size_bytes).label("size_bytes"))
    began = sa.func.min(batches.c.first_attempt_at).label("first_attempt_at")
    of_groups = sa.select(*key, *sums, began).where(batches.c.stage == "embed", batches.c.group_id.in_(_GROUPS))
    return of_groups.group_by(*key).having(over)


_COMPLETE = _complete()
_EMBEDDED = (versions.c.batch_id.in_(_GROUPS), versions.c.state == "embedding")
_COUNTED = sa.select(versions.c.batch_id, sa.func.count()).where(*_EMBEDDED).group_by(versions.c.batch_id)
_MOVE = sa.update(versions).where(*_EMBEDDED).values(state="indexing")


def index_batch_of(group_id: BatchId) -> BatchId:
    """Return the id of a group's index batch: always the same, so that a join done twice makes one."""
    return BatchId(f"{group_id}-index")


def join_groups(connection: Connection, group_ids: Sequence[str], *, now: float) -> int:
    """Make the index batches of those groups whose embed batches are all over. Returns how many were made.

    A dead part has given its documents back before; what is left of the group is whole.
    """
    joined = 0
    for some in slices(list(group_ids)):
        complete = {row.group_id: row for row in connection.execute(_COMPLETE, {"groups": some})}
        if not complete:
            continue
        waiting = connection.execute(_COUNTED, {"groups": list(complete)})
        rows = [_index_batch(complete[group_id], count, now=now) for group_id, count in waiting]
        if not rows:
            continue
        insert_absent(connection, batches, rows)
        connection.execute(_MOVE, {"groups": [row["group_id"] for row in rows]})
        joined += len(rows)
    return joined


def missed_joins(connection: Connection) -> Sequence[str]:
    """Return the groups with documents in the state embedding whose embed batches are all over."""
    waiting = sa.select(versions.c.batch_id).where(IS_EMBEDDING).distinct().subquery()
    still_open = sa.exists().where(
        batches.c.group_id == waiting.c.batch_id, batches.c.stage == "embed", batches.c.state.not_in(_OVER)
    )
    return connection.scalars(sa.select(waiting.c.batch_id).where(~still_open)).all()


def _index_batch(group: Row[Any], document_count: int, *, now: float) -> dict[str, Any]:
    return {
        "id": index_batch_of(BatchId(group.group_id)),
        "tenant_id": group.tenant_id,
        "generation_id": group.generation_id,
        "shard": group.shard,
        "stage": "index",
        "state": "ready",
        "group_id": group.group_id,
        "priority": group.priority,
        "document_count": document_count,
        "chunk_count": int(group.chunks),
        "size_bytes": int(group.size_bytes),
        "first_attempt_at": group.first_attempt_at,
        "created_at": now,
    }
