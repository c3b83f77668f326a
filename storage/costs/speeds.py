"""How fast a model embedded what came before: for guesses of how long something will take. Reads only."""

from statistics import median

import sqlalchemy as sa

from ..catalog.engine import Catalog
from ..catalog.tables import ECONOMY, generations, jobs, versions

JOBS = 20
LEAST_TOKENS = 200  # a job of one note says more of the machine's other work


def read_speed(catalog: Catalog, *, model: str, dimensions: int) -> float | None:
    """Return the tokens per second of the last jobs in this model, from their acceptance to their end; None: none was.

    Whosever they were: a speed tells nothing of what was embedded.
    """
    wanted = sa.select(jobs.c.embedded_tokens, jobs.c.created_at, jobs.c.finished_at)
    wanted = wanted.join(generations, generations.c.collection_id == jobs.c.collection_id)
    wanted = wanted.where(
        generations.c.model == model,
        generations.c.dimensions == dimensions,
        generations.c.state == "active",
        jobs.c.state == "done",
        jobs.c.embedded_tokens >= LEAST_TOKENS,
        jobs.c.finished_at > jobs.c.created_at,
        jobs.c.created_at >= sa.func.coalesce(generations.c.active_since, 0.0),  # before that it was another model
        ~sa.exists().where(versions.c.job_id == jobs.c.id, versions.c.priority == ECONOMY),  # it may wait for a day
    )
    with catalog.read() as connection:
        rows = connection.execute(wanted.order_by(jobs.c.created_at.desc()).limit(JOBS)).all()
    speeds = [row.embedded_tokens / (row.finished_at - row.created_at) for row in rows]
    return median(speeds) if speeds else None
