"""The batch by which the writer of a shard looks after a generation that follows another, woken when there is need.

There is one for each re-embedding, opened again and again. It runs in its caller's transaction.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ids import BatchId
from .tables import REEMBEDDING_ENDS, batches, reembeddings

REST_S = 5.0  # between two looks at what changed, where nobody waits for the generation: each makes a version of it
IN_HASTE = ("copying", "switching", "returning")
_SUFFIX = "-follow"


def follow_batch_of(reembedding_id: str) -> BatchId:
    """Return the id of the batch by which a re-embedding is looked after."""
    return BatchId(f"{reembedding_id}{_SUFFIX}")


def wake(connection: Connection, reembedding_id: str, *, at: float) -> None:
    """Let the writer look after a re-embedding, at that moment at the latest. One that is looked after stays as it is.

    Its holder looks again before he ends it, under the lock that this waits for: nothing that was committed before is
    overlooked.
    """
    mine = batches.c.id == follow_batch_of(reembedding_id)
    row = connection.execute(
        sa.select(batches.c.state, batches.c.next_attempt_at).where(mine).with_for_update()
    ).first()
    if row is None or row.state == "running":
        return
    if row.state in ("done", "dead"):
        again: dict[str, Any] = {"state": "ready", "attempts": 0, "next_attempt_at": at, "finished_at": None}
        connection.execute(sa.update(batches).where(mine).values(created_at=at, error=None, **again))
    elif row.next_attempt_at > at:
        connection.execute(sa.update(batches).where(mine).values(next_attempt_at=at))


def wake_followers(connection: Connection, generation_id: str, *, now: float) -> None:
    """Let the writer look after whatever follows this generation, of which a version was published."""
    following = sa.select(reembeddings.c.id, reembeddings.c.state)
    following = following.where(
        reembeddings.c.source_id == generation_id, reembeddings.c.state.not_in(REEMBEDDING_ENDS)
    )
    for row in connection.execute(following).all():
        wake(connection, row.id, at=now if row.state in IN_HASTE else now + REST_S)


def not_held(now: float) -> sa.ColumnElement[bool]:
    """Return the condition for batches in whose generation may be published: no other is about to take over from it."""
    held = (reembeddings.c.source_id == batches.c.generation_id, reembeddings.c.hold_until > now)
    return ~sa.exists().where(*held)
