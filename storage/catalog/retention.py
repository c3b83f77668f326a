"""Which past versions of a generation are kept, and the end of those that are not.

A version ends with its row, by `expire_versions`; its manifest, and the files that only it named, are then garbage.
Whoever makes use of a version that is not the current one (a tag, a fork, a rollback) holds its row until his commit,
so that it cannot end in between; a rollback that waits for the writer keeps its version. It touches no object.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ids import GenerationId, TenantId
from .completion import OPEN_BATCH
from .tables import (
    REEMBEDDING_ENDS,
    batches,
    collections,
    generations,
    manifests,
    reader_leases,
    reembeddings,
    tags,
)
from .values import slices


@dataclass(frozen=True)
class Retention:
    """A version is kept while one of these holds, while a tag names it, a live reader uses it, or another generation
    copies what it serves.

    A collection may have values of its own.

    ``keep_s`` counts from when it was followed by the next.
    """

    keep_versions: int = 10  # the newest, the current one included
    keep_s: float = 3_600.0


def expire_versions(
    connection: Connection, *, tenant: TenantId, now: float, retention: Retention = Retention()
) -> list[str]:
    """Forget the tenant's versions past retention that nothing needs; returns the names of their manifests.

    From the commit on nobody can open, tag, fork or roll back to them. One that is just being held stays this time.
    """
    needed = sa.or_(*is_needed())
    ordered = _OVER.order_by(manifests.c.generation_id, manifests.c.version)
    bounds = _bounds(tenant, now=now, retention=retention)
    found: dict[GenerationId, list[int]] = defaultdict(list)
    for row in connection.execute(ordered.with_for_update(of=manifests, skip_locked=True), bounds):
        found[row.generation_id].append(row.version)
    waiting = sa.select(batches.c.generation_id, batches.c.details).where(batches.c.tenant_id == tenant)
    waiting = waiting.where(batches.c.stage == "rollback", batches.c.state.in_(OPEN_BATCH))
    for row in connection.execute(waiting):
        found[row.generation_id] = [n for n in found[row.generation_id] if n != row.details["version"]]
    names: list[str] = []
    for generation_id, numbers in found.items():
        for some in slices(numbers):  # asked again: what was tagged or leased before the lock was taken stays
            mine = (manifests.c.generation_id == generation_id, manifests.c.version.in_(some))
            names += connection.scalars(sa.delete(manifests).where(*mine, ~needed).returning(manifests.c.name)).all()
    return names


def any_over(connection: Connection, *, tenant: TenantId, now: float, retention: Retention = Retention()) -> bool:
    """Say whether `expire_versions` may find something, without a lock: of thousands of tenants most have nothing."""
    return connection.execute(_ANY_OVER, _bounds(tenant, now=now, retention=retention)).first() is not None


def is_needed() -> list[sa.ColumnElement[bool]]:
    """Return the conditions under which a version stays, however old: tagged, leased, or being copied from."""
    tagged, leased = (
        sa.exists().where(by.c.generation_id == manifests.c.generation_id, by.c.version == manifests.c.version)
        for by in (tags, reader_leases)
    )
    copied = manifests.c.version.in_((reembeddings.c.base_version, reembeddings.c.source_version))
    of_source = (reembeddings.c.source_id == manifests.c.generation_id, reembeddings.c.state.not_in(REEMBEDDING_ENDS))
    return [tagged, leased, sa.exists().where(*of_source, copied)]


def _over() -> sa.Select[Any]:
    """Return the statement for a tenant's versions past retention that nothing needs; its parameters are `_bounds`."""
    old = sa.select(manifests.c.generation_id, manifests.c.version)
    old = old.join(generations, generations.c.id == manifests.c.generation_id)
    old = old.join(collections, collections.c.id == generations.c.collection_id)
    keep_versions = sa.func.coalesce(collections.c.keep_versions, sa.bindparam("keep_versions", type_=sa.BigInteger))
    keep_s = sa.func.coalesce(collections.c.keep_s, sa.bindparam("keep_s", type_=sa.Double))
    return old.where(
        manifests.c.tenant_id == sa.bindparam("tenant"),
        manifests.c.version <= generations.c.version - keep_versions,
        manifests.c.version < generations.c.version,
        manifests.c.followed_at <= sa.bindparam("now", type_=sa.Double) - keep_s,
        ~sa.or_(*is_needed()),  # or all that is tagged would be locked at each pass
    )


_OVER = _over()  # made once: for each of thousands of tenants that takes longer than to run it
_ANY_OVER = _OVER.limit(1)


def _bounds(tenant: TenantId, *, now: float, retention: Retention) -> dict[str, Any]:
    kept = {"keep_versions": retention.keep_versions, "keep_s": retention.keep_s}
    return {"tenant": tenant, "now": now, **kept}


def retained_manifests(connection: Connection, *, tenant: TenantId) -> dict[str, GenerationId]:
    """Return the names of all manifests of the tenant that are kept, and whose versions they are.

    The files that they name stay, under whichever generation's prefix they lie: a fork names its parent's.
    """
    kept = sa.select(manifests.c.name, manifests.c.generation_id).where(manifests.c.tenant_id == tenant)
    return {row.name: GenerationId(row.generation_id) for row in connection.execute(kept)}
