"""Who is to be told that a job ended: rows written by the transaction that ends it, so that no end goes untold.

Who that is the job says; else its collection, or its tenant.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..ids import new_id
from .tables import deliveries, jobs
from .webhook_defaults import defaults_of

ENDED = (jobs.c.id, jobs.c.tenant_id, jobs.c.webhook_url)  # what `tell` needs of a job that ended


def tell(connection: Connection, ended: Sequence[Row[Any]], *, now: float) -> None:
    """Log a delivery for each of these jobs that has somebody to tell. Call it once for each end."""
    by_default = defaults_of(connection, [row.id for row in ended if row.webhook_url is None])
    rows = [
        {
            "id": new_id("msg"),
            "tenant_id": row.tenant_id,
            "job_id": row.id,
            "url": row.webhook_url or by_default[row.id],
            "state": "waiting",
            "next_attempt_at": now,
            "created_at": now,
        }
        for row in ended
        if row.webhook_url is not None or row.id in by_default
    ]
    if rows:
        connection.execute(sa.insert(deliveries), rows)
