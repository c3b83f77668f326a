"""Re-embeddings that nobody looks after though there is something to do: whoever was to be told of it died before.

Each change wakes the writer in its own transaction. This finds what was done by others than those: slices that the
reconciler gave up or handed back, and a step that failed at every attempt.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.completion import OPEN_BATCH
from ..catalog.engine import Catalog
from ..catalog.followers import IN_HASTE, wake
from ..catalog.tables import REEMBEDDING_ENDS, batches, generations, reembeddings
from ..catalog.values import slices
from .records import hold_reembedding
from .slices import FAR_AWAY, postpone_slices
from .steps import situation_of

GIVEN_UP_S = 3_600.0


def wake_missed(catalog: Catalog, *, now: float) -> int:
    """Look after what nobody was told of: slices given up, a step that failed at every attempt. Returns how many.

    Run every few seconds by anyone; two statements where nothing is overdue, however many are open.
    """
    with catalog.read() as connection:
        rows = connection.execute(_open_ones()).all()
        restless = _restless_among(connection, [row.id for row in rows if row.paused_at is not None])
        waiting = [row.id for row in rows if _may_be_overdue(row, now=now) and _is_overdue(connection, row.id)]
    for one in restless:  # what was tried when it was paused, and handed back after that
        with catalog.write("pause_reembedding") as connection:
            if hold_reembedding(connection, one).paused_at is not None:
                postpone_slices(connection, one)
    for one in waiting:
        with catalog.write("wake_reembedding") as connection:
            hold_reembedding(connection, one)
            wake(connection, one, at=now)
    return len(waiting)


def _open_ones() -> sa.Select[Any]:
    """Return the statement for what tells of each open re-embedding whether it is worth a closer look."""
    follow = batches.alias("follow")
    told = (follow.c.state.label("step"), follow.c.finished_at, generations.c.version.label("newest"))
    columns = ("id", "paused_at", "state", "base_version", "source_version")
    wanted = sa.select(*(reembeddings.c[name] for name in columns), *told)
    wanted = wanted.join(generations, generations.c.id == reembeddings.c.source_id)
    mine = sa.and_(follow.c.reembedding_id == reembeddings.c.id, follow.c.stage == "follow")
    return wanted.join(follow, mine).where(reembeddings.c.state.not_in(REEMBEDDING_ENDS))


def _may_be_overdue(row: Row[Any], *, now: float) -> bool:
    """Say whether nobody looks after it, though there is something to do. Slices there are only within a round.

    While it is checked, the check may be given up.
    """
    if row.step in OPEN_BATCH or row.paused_at is not None:
        return False
    if row.step == "dead" and row.finished_at > now - GIVEN_UP_S:
        return False
    return row.source_version is not None or row.newest != row.base_version or row.state in (*IN_HASTE, "checking")


def _is_overdue(connection: Connection, reembedding_id: str) -> bool:
    situation = situation_of(connection, reembedding_id)
    return situation.next_step is not None and not situation.rests()


def _restless_among(connection: Connection, reembedding_ids: Sequence[str]) -> list[str]:
    """Return those of these re-embeddings a slice of which waits for an attempt that was not put off, in order."""
    waits = (batches.c.state == "ready", batches.c.next_attempt_at < FAR_AWAY)
    copying = batches.c.stage.in_(("chunk", "embed"))
    found: set[str] = set()
    for some in slices(list(reembedding_ids)):
        mine = batches.c.reembedding_id.in_(some)
        found.update(connection.scalars(sa.select(batches.c.reembedding_id).where(mine, *waits, copying).distinct()))
    return sorted(found)
