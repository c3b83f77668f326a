"""What is over because nothing in it is open any more: jobs and batches, by looking at the set, never by counting.

Called at the end of transactions that changed versions. Rows that another transaction holds are skipped, so that
nobody waits here while holding the rows the other needs; the reconciler comes by again.
"""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .outbox import ENDED, tell
from .tables import VERSION_FINAL_STATES, VERSION_STATES, batches, jobs, versions
from .values import slices

UNFINISHED = tuple(state for state in VERSION_STATES if state not in VERSION_FINAL_STATES)
OPEN_BATCH = ("ready", "sent", "running")


def finish_jobs(connection: Connection, *, now: float, job_ids: Collection[str] | None = None) -> int:
    """Stamp as done the running jobs (of ``job_ids``, or all) without an unfinished version. Returns how many."""
    found = sa.select(jobs.c.id).where(jobs.c.state == "running").order_by(jobs.c.id)
    if job_ids is not None:
        found = found.where(jobs.c.id.in_(sorted(job_ids)))
    # Locked first, looked at by the next statement: a document that is just being appended is then seen.
    candidates = connection.scalars(found.with_for_update(skip_locked=True)).all()
    unfinished = sa.exists().where(versions.c.job_id == jobs.c.id, versions.c.state.in_(UNFINISHED))
    done = sa.update(jobs).where(~unfinished).values(state="done", finished_at=now).returning(*ENDED)
    ended = [row for some in slices(candidates) for row in connection.execute(done.where(jobs.c.id.in_(some)))]
    tell(connection, ended, now=now)
    return len(ended)


def close_empty_batches(connection: Connection, group_ids: Collection[str], *, now: float) -> int:
    """Close the open chunk, embed and index batches of these groups that have no unfinished version left."""
    unfinished = sa.exists().where(versions.c.batch_id == batches.c.group_id, versions.c.state.in_(UNFINISHED))
    closed = 0
    for some in slices(sorted(group_ids)):
        found = (
            sa.select(batches.c.id)
            .where(batches.c.group_id.in_(some), batches.c.state.in_(OPEN_BATCH), ~unfinished)
            .where(batches.c.stage.in_(("chunk", "embed", "index")), batches.c.reembedding_id.is_(None))
            .order_by(batches.c.id)
            .with_for_update(skip_locked=True)
        )
        ids = connection.scalars(found).all()
        values = {"state": "done", "error": "no document left", "finished_at": now}
        for few in slices(ids):
            closed += connection.execute(sa.update(batches).where(batches.c.id.in_(few)).values(values)).rowcount
    return closed
