"""Budgets of jobs, and work that waits for a budget: a raised one makes it ready again."""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import NotFound
from ..ids import JobId, TenantId
from .batches import PAUSED_FROM
from .engine import Catalog
from .tables import batches, jobs

WAITS_FOR_MONEY = ("job_budget", "month_budget")


def set_job_budget(catalog: Catalog, *, tenant: TenantId, job_id: JobId, budget_usd: float | None) -> None:
    """Let a job cost so much in all, what it has cost included; None: whatever it costs. Twice is harmless.

    Raises NotFound.
    """
    with catalog.write("set_job_budget") as connection:
        mine = (jobs.c.id == job_id, jobs.c.tenant_id == tenant)
        changed = connection.execute(sa.update(jobs).where(*mine).values(budget_usd=budget_usd))
        if changed.rowcount != 1:
            raise NotFound(f"there is no job {job_id!r}")
        wake_for_money(connection, tenant)


def wake_for_money(connection: Connection, tenant: TenantId) -> None:
    """Make what waits for a budget of this tenant ready at once. What has no room even now goes back to waiting."""
    mine = (batches.c.tenant_id == tenant, batches.c.stage == "embed", batches.c.state == "ready")
    waits = (batches.c.postponed.in_(WAITS_FOR_MONEY), batches.c.next_attempt_at < PAUSED_FROM)
    waiting = sa.update(batches).where(*mine, *waits)
    connection.execute(waiting.values(next_attempt_at=sa.func.coalesce(batches.c.last_attempt_at, 0.0)))
