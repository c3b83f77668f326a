"""Tables of webhooks: secrets, and the outbox of deliveries."""

from sqlalchemy import (
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    literal_column,
)

from .conventions import metadata, one_of, partial

DELIVERY_STATES = ("waiting", "sending", "delivered", "dead", "dropped")
_OPEN_DELIVERY = "state IN ('waiting', 'sending')"

webhook_secrets = Table(  # what a tenant's webhooks are signed with: whoever signs needs the secret itself
    "webhook_secrets",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), primary_key=True),
    Column("secret", Text, nullable=False),
    Column("former", Text),  # still signs too, until then
    Column("former_until", Double),
    Column("url", Text),  # who is told of the tenant's jobs that name nobody; see ``webhook_defaults.py``
    Column("created_at", Double, nullable=False),
)

deliveries = Table(  # the outbox of webhooks: written by the transaction that ends a job
    "deliveries",
    metadata,
    Column("id", String(64), primary_key=True),  # the webhook-id: the same at every attempt
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("job_id", String(64), nullable=False),  # which may be gone: nobody is told of it then
    Column("url", Text, nullable=False),
    Column("state", String(16), one_of("state", DELIVERY_STATES), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("owner", String(128)),
    Column("next_attempt_at", Double, nullable=False),  # sending: when the claim ends
    Column("status", Integer),  # of the last answer
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Index(None, "tenant_id", "id"),
    partial("ix_deliveries_open", "next_attempt_at", "id", where=_OPEN_DELIVERY),
    partial("ix_deliveries_due", "tenant_id", "next_attempt_at", "id", where=_OPEN_DELIVERY),
    partial("ix_deliveries_sending", "tenant_id", "next_attempt_at", where="state = 'sending'"),
    partial("ix_deliveries_ended", "finished_at", "id", where="finished_at IS NOT NULL"),
)
IS_SENDING = deliveries.c.state == literal_column("'sending'")
IS_OPEN_DELIVERY = deliveries.c.state.in_([literal_column("'waiting'"), literal_column("'sending'")])
