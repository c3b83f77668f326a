"""A quick look at whether there is anything to send, so that an idle dispatcher takes no write lock. Reads only."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.engine import Catalog
from ..catalog.tables import BATCH_STAGES, IS_QUEUED, batches, collections, versions
from .pauses import goes_on, read_pauses


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
    waiting = sa.select(batches.c.stage).where(batches.c.state == "ready", batches.c.next_attempt_at <= now).distinct()
    waiting = waiting.where(batches.c.stage.in_(BATCH_STAGES))
    express = sa.func.count().filter(batches.c.express).label("express")
    counted = sa.select(batches.c.stage, batches.c.state, sa.func.count().label("batches"), express)
    counted = counted.where(batches.c.state.in_(("sent", "running"))).group_by(batches.c.stage, batches.c.state)
    in_flight, running, fast = (dict.fromkeys(BATCH_STAGES, 0) for _ in range(3))
    with catalog.read() as connection:
        paused = read_pauses(connection).any
        stages = frozenset(connection.scalars(waiting.where(goes_on(batches.c.tenant_id)) if paused else waiting))
        queued = _queued(connection, paused=paused)
        for row in connection.execute(counted):
            in_flight[row.stage] += row.batches
            running[row.stage] += row.batches if row.state == "running" else 0
            fast[row.stage] += row.express
    return Due(stages, queued, in_flight, running, fast)


def _queued(connection: Connection, *, paused: bool) -> bool:
    if not paused:
        return bool(connection.scalar(sa.select(sa.exists().where(IS_QUEUED))))
    # One probe per collection: a look at every document of a paused tenant would take long.
    here = sa.exists().where(IS_QUEUED, versions.c.collection_id == collections.c.id)
    found = sa.select(collections.c.id).where(here, goes_on(collections.c.tenant_id))
    return connection.scalar(found.limit(1)) is not None
