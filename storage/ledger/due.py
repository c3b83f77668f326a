"""A quick look at whether there is anything to send, so that an idle dispatcher takes no write lock. Reads only."""

from dataclasses import dataclass

import sqlalchemy as sa

from ..catalog.engine import Catalog
from ..catalog.tables import BATCH_STAGES, IS_QUEUED, batches


@dataclass(frozen=True)
class Due:
    """``stages`` have batches that are due; ``queued``: some document is in no batch yet; ``in_flight`` by stage."""

    stages: frozenset[str]
    queued: bool
    in_flight: dict[str, int]


def look(catalog: Catalog, *, now: float) -> Due:
    """Return what a dispatcher could do now."""
    waiting = sa.select(batches.c.stage).where(batches.c.state == "ready", batches.c.next_attempt_at <= now).distinct()
    counted = sa.select(batches.c.stage, sa.func.count().label("batches"))
    counted = counted.where(batches.c.state.in_(("sent", "running")))
    with catalog.read() as connection:
        stages = frozenset(connection.scalars(waiting.where(batches.c.stage.in_(BATCH_STAGES))))
        queued = bool(connection.scalar(sa.select(sa.exists().where(IS_QUEUED))))
        found = {row.stage: row.batches for row in connection.execute(counted.group_by(batches.c.stage))}
    return Due(stages, queued, {stage: found.get(stage, 0) for stage in BATCH_STAGES})
