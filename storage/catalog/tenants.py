"""Tenants, and the facts of this installation: its admin key. Only a hash of the key is kept."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..errors import AlreadyExists, NotFound
from ..ids import TenantId, checked_name
from .backlogs import Amount, waiting_of
from .budgets import wake_for_money
from .engine import Catalog
from .statements import insert_if_absent
from .tables import backlogs, collections, installation, recorded_queries, tenants

DEFAULT_TENANT = TenantId("default")


@dataclass(frozen=True)
class TenantInfo:
    """``weight``: its share of the workers beside those of the others. ``max_backlog_documents`` and ``_bytes``: limits
    of its own; None: as the installation has them. ``waiting``: what waits of it to be cut. ``record_queries``: whether
    some of its searches may be recorded, where the installation does.
    """

    id: TenantId
    created_at: float
    weight: float
    max_backlog_documents: int | None
    max_backlog_bytes: int | None
    monthly_budget_usd: float | None
    paused_at: float | None
    waiting: Amount
    record_queries: bool = True


def create_tenant(catalog: Catalog, tenant: str, *, now: float) -> TenantId:
    """Make a tenant. Raises InvalidName, or AlreadyExists."""
    tenant_id = TenantId(checked_name("tenant", tenant))
    with catalog.write("create_tenant") as connection:
        if not _insert_tenant(connection, tenant_id, now=now):
            raise AlreadyExists(f"tenant {tenant_id!r} exists already")
    return tenant_id


def list_tenants(catalog: Catalog) -> list[TenantInfo]:
    """Return every tenant, by name."""
    with catalog.read() as connection:
        return [_info(row) for row in connection.execute(_described().order_by(tenants.c.id))]


def get_tenant(catalog: Catalog, tenant: str) -> TenantInfo:
    """Return one tenant. Raises NotFound."""
    with catalog.read() as connection:
        row = connection.execute(_described().where(tenants.c.id == tenant)).first()
    if row is None:
        raise _not_found(tenant)
    return _info(row)


def change_tenant(catalog: Catalog, tenant: TenantId, **values: float | None) -> None:
    """Set ``weight``, ``max_backlog_documents``, ``max_backlog_bytes``, ``monthly_budget_usd`` or ``record_queries``.

    None: a weight of 1, no limit of its own, queries recorded. Those that were are forgotten when none may be any more.

    Raises NotFound.
    """
    assert values.keys() <= {
        "weight",
        "max_backlog_documents",
        "max_backlog_bytes",
        "monthly_budget_usd",
        "record_queries",
    }
    for name, usual in (("weight", 1.0), ("record_queries", True)):
        if name in values and values[name] is None:
            values[name] = usual
    with catalog.write("change_tenant") as connection:
        changed = sa.update(tenants).where(tenants.c.id == tenant).values({"id": tenant, **values})
        if connection.execute(changed).rowcount != 1:
            raise _not_found(tenant)
        if "monthly_budget_usd" in values:
            wake_for_money(connection, tenant)
        if values.get("record_queries") is False:  # whoever records waits for the tenant's row, and finds it so
            connection.execute(sa.delete(recorded_queries).where(recorded_queries.c.tenant_id == tenant))


def _described() -> sa.Select[Any]:
    counted = (backlogs.c[name] for name in ("came_documents", "came_bytes", "left_documents", "left_bytes"))
    return sa.select(tenants, *counted).join(backlogs, backlogs.c.tenant_id == tenants.c.id, isouter=True)


def _info(row: Row[Any]) -> TenantInfo:
    return TenantInfo(
        id=TenantId(row.id),
        created_at=row.created_at,
        weight=row.weight,
        max_backlog_documents=row.max_backlog_documents,
        max_backlog_bytes=row.max_backlog_bytes,
        monthly_budget_usd=row.monthly_budget_usd,
        paused_at=row.paused_at,
        waiting=waiting_of(row),
        record_queries=row.record_queries,
    )


def _not_found(tenant: str) -> NotFound:
    return NotFound(f"there is no tenant {tenant!r}")


def require_tenant(connection: Connection, tenant: TenantId) -> None:
    """Return if the tenant exists. Raises NotFound."""
    if connection.scalar(sa.select(tenants.c.id).where(tenants.c.id == tenant)) is None:
        raise _not_found(tenant)


def hold_tenant(connection: Connection, tenant: TenantId) -> None:
    """Keep the collector of packs out until the commit. Others who hold the tenant so do not wait for each other."""
    connection.execute(sa.select(tenants.c.id).where(tenants.c.id == tenant).with_for_update(read=True))


def hold_collection_count(connection: Connection, tenant: TenantId) -> None:
    """Let nobody else make a collection of the tenant until the commit. Accepts and collectors do not notice.

    Not by the tenant's row: the collector of packs may hold that for long, and accepts hold it all the time.
    """
    if connection.dialect.name == "postgresql":  # on SQLite this transaction is the only writer
        key = hashlib.blake2b(f"collections of {tenant}".encode(), digest_size=8).digest()
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(int.from_bytes(key, "big", signed=True))))


def ensure_installation(catalog: Catalog, *, now: float, key: str | None) -> str | None:
    """Make the tenant ``default`` and the admin key where they are missing. Twice is harmless.

    ``key``: the key from the settings; it replaces the one in force. Without it one is made at the first call.
    Returns the key in force when this call made or replaced it, else None: it cannot be shown a second time.
    """
    with catalog.write("ensure_installation") as connection:
        _insert_tenant(connection, DEFAULT_TENANT, now=now)
        made = key or f"pk_admin_{secrets.token_urlsafe(32)}"
        row = {"id": 1, "admin_key_hash": _key_hash(made), "created_at": now}
        if insert_if_absent(connection, installation, row):
            return made
        if key is None:
            return None
        changed = sa.update(installation).where(installation.c.admin_key_hash != _key_hash(key))
        replaced = connection.execute(changed.values(admin_key_hash=_key_hash(key))).rowcount
        return key if replaced else None


def is_unused(catalog: Catalog) -> bool:
    """Say whether no installation ever began with this catalog: it may not even have its schema."""
    with catalog.read() as connection:
        if not sa.inspect(connection).has_table(installation.name):
            return True
        used = (sa.exists().select_from(table) for table in (installation, collections))
        return not any(connection.scalar(sa.select(one)) for one in used)


def admin_key_matches(catalog: Catalog, key: str) -> bool:
    """Say whether ``key`` is the admin key, in a time that does not depend on how much of it is right."""
    with catalog.read() as connection:
        stored = connection.scalar(sa.select(installation.c.admin_key_hash))
    return stored is not None and hmac.compare_digest(stored, _key_hash(key))


def _insert_tenant(connection: Connection, tenant: TenantId, *, now: float) -> bool:
    return insert_if_absent(connection, tenants, {"id": tenant, "created_at": now})


def _key_hash(key: str) -> bytes:
    # Surrogates cannot come from a settings file, but can from a header; they must not raise.
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).digest()
