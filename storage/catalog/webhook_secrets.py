"""What a tenant's webhooks are signed with. Shown once, when it is made; kept as it is, for whoever signs needs it."""

import base64
import secrets
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import Conflict
from ..ids import TenantId
from .engine import Catalog
from .statements import insert_if_absent
from .tables import webhook_secrets
from .tenants import require_tenant

PREFIX = "whsec_"
SECRET_BYTES = 32
FORMER_S = 86_400.0  # how long the secret before goes on signing beside the new one


@dataclass(frozen=True)
class NewSecret:
    """``former_until``: until when the secret before signs too; None when there was none."""

    secret: str
    created_at: float
    former_until: float | None


def rotate_secret(catalog: Catalog, tenant: TenantId, *, now: float) -> NewSecret:
    """Make the tenant's secret, or another one in its place. It is never shown again. Raises NotFound."""
    made = PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    with catalog.write("rotate_secret") as connection:
        require_tenant(connection, tenant)
        row = {"tenant_id": tenant, "secret": made, "created_at": now}
        if insert_if_absent(connection, webhook_secrets, row):
            return NewSecret(made, now, None)
        former = {"former": webhook_secrets.c.secret, "former_until": now + FORMER_S}
        changed = sa.update(webhook_secrets).where(webhook_secrets.c.tenant_id == tenant)
        connection.execute(changed.values(secret=made, created_at=now, **former))
    return NewSecret(made, now, now + FORMER_S)


def signing_secrets(catalog: Catalog, tenant: TenantId, *, now: float) -> list[str]:
    """Return what signs now, the newest first; none when the tenant has none."""
    wanted = sa.select(webhook_secrets).where(webhook_secrets.c.tenant_id == tenant)
    with catalog.read() as connection:
        row = connection.execute(wanted).first()
    if row is None:
        return []
    former = [row.former] if row.former is not None and now < row.former_until else []
    return [row.secret, *former]


def require_secret(connection: Connection, tenant: TenantId) -> None:
    """Return if the tenant has a secret. Raises Conflict."""
    found = sa.select(webhook_secrets.c.tenant_id).where(webhook_secrets.c.tenant_id == tenant)
    if connection.scalar(found) is None:
        raise Conflict(
            f"tenant {tenant!r} has no webhook secret to sign with: `penstock webhooks secret --tenant {tenant}` or "
            f"POST /v1/tenants/{tenant}/webhooks/secret makes one, and shows it once"
        )
