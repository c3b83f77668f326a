"""A quick look at whether there is anything to send, so that an idle dispatcher takes no write lock. Reads only."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.engine import Catalog
from ..catalog.tables import BATCH_STAGES, IS_QUEUED, batches, collections, versions
from .pauses import goes_on, read_pauses

# Made once: to make a statement takes longer than to run it, and the dispatcher asks all the time.
_WAITING = (
    sa.select(batches.c.stage)
    .where(batches.c.state == "ready", batches.c.next_attempt_at <= sa.bindparam("now", type_=sa.Double))
    .where(batches.c.stage.in_(BATCH_STAGES))
    .distinct()
)
_GOING_ON = _WAITING.where(goes_on(batches.c.tenant_id))
_COUNTED = (
    sa.select(batches.c.stage, batches.c.state, sa.func.count().label("batches"))
    .add_columns(sa.func.count().filter(batches.c.express).label("express"))
    .where(batches.c.state.in_(("sent", "running")))
    .group_by(batches.c.stage, batches.c.state)
)
_ANY_QUEUED = sa.select(sa.exists().where(IS_QUEUED))


@dataclass(frozen=True)
class Due:
    """``stages`` have batches that are due; ``queued``: some document is in no batch yet. What is paused is neither.

    ``in_flight``, ``running``, ``express`` (of those in flight): batches by stage, those of paused tenants too.
    """

    stages: frozenset[str]
    queued: bool
    in_flight: dict[str, int]
    running: dict[str, int]
    express: dict[str, int]


def look(catalog: Catalog, *, now: float) -> Due:
    """Return what a dispatcher could do now."""
    in_flight, running, fast = (dict.fromkeys(BATCH_STAGES, 0) for _ in range(3))
    with catalog.read() as connection:
        paused = read_pauses(connection).any
        stages = frozenset(connection.scalars(_GOING_ON if paused else _WAITING, {"now": now}))
        queued = _queued(connection, paused=paused)
        for row in connection.execute(_COUNTED):
            in_flight[row.stage] += row.batches
            running[row.stage] += row.batches if row.state == "running" else 0
            fast[row.stage] += row.express
    return Due(stages, queued, in_flight, running, fast)


def _queued(connection: Connection, *, paused: bool) -> bool:
    if not paused:
        return bool(connection.scalar(_ANY_QUEUED))
    # One probe per collection: a look at every document of a paused tenant would take long.
    here = sa.exists().where(IS_QUEUED, versions.c.collection_id == collections.c.id)
    found = sa.select(collections.c.id).where(here, goes_on(collections.c.tenant_id))
    return connection.scalar(found.limit(1)) is not None
