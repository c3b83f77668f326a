"""Who is told of the jobs that name nobody: of a collection, and of a tenant's other collections.

Looked up in the transaction that ends a job. Whether a URL may be told is checked by the caller.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import NotFound
from ..ids import TenantId
from .engine import Catalog
from .tables import collections, jobs, webhook_secrets
from .values import slices
from .webhook_secrets import require_secret


@dataclass(frozen=True)
class WebhookDefaults:
    """``url``: of the tenant; ``collections``: of those that have another one, by name."""

    url: str | None
    collections: Mapping[str, str] = field(default_factory=dict)


def read_defaults(catalog: Catalog, tenant: TenantId) -> WebhookDefaults:
    """Return who is told by default of a tenant's jobs."""
    own = sa.select(collections.c.name, collections.c.webhook_url).where(collections.c.tenant_id == tenant)
    own = own.where(collections.c.webhook_url.is_not(None)).order_by(collections.c.name)
    with catalog.read() as connection:
        url = connection.scalar(sa.select(webhook_secrets.c.url).where(webhook_secrets.c.tenant_id == tenant))
        return WebhookDefaults(url, {row.name: row.webhook_url for row in connection.execute(own)})


def set_default(catalog: Catalog, tenant: TenantId, url: str | None, *, collection: str | None = None) -> None:
    """Have this URL told of jobs that end from now on and name nobody; None: nobody, or as the tenant has it.

    Raises:
        Conflict: the tenant has no secret to sign with.
        NotFound: it has no such collection.
    """
    with catalog.write("set_webhook_default") as connection:
        require_secret(connection, tenant)
        if collection is None:
            mine = sa.update(webhook_secrets).where(webhook_secrets.c.tenant_id == tenant).values(url=url)
        else:
            mine = sa.update(collections).where(collections.c.tenant_id == tenant, collections.c.name == collection)
            mine = mine.values(webhook_url=url)
        if connection.execute(mine).rowcount != 1:
            raise NotFound(f"there is no collection {collection!r}")


def defaults_of(connection: Connection, job_ids: Collection[str]) -> dict[str, str]:
    """Return who is told by default of these jobs, by job; those of which nobody is are left out."""
    url = sa.func.coalesce(collections.c.webhook_url, webhook_secrets.c.url).label("url")
    wanted = sa.select(jobs.c.id, url).join(collections, collections.c.id == jobs.c.collection_id)
    wanted = wanted.join(webhook_secrets, webhook_secrets.c.tenant_id == jobs.c.tenant_id)  # nothing signs without
    wanted = wanted.where(url.element.is_not(None))
    found: dict[str, str] = {}
    for some in slices(sorted(job_ids)):
        found.update((row.id, row.url) for row in connection.execute(wanted.where(jobs.c.id.in_(some))))
    return found
