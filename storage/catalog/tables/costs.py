"""Tables of money: what calls of providers cost, what is set aside for calls under way, and what budgets count."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
)

from .conventions import metadata

costs = Table(  # sums by hour; nothing below the tenant is a foreign key, for costs outlive what they were for
    "costs",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("hour", BigInteger, nullable=False),  # hours since 1970, in UTC
    Column("collection_id", String(64), nullable=False),
    Column("job_id", String(64), nullable=False),  # empty: of searches
    Column("model", String(128), nullable=False),
    Column("collection", String(64), nullable=False),  # its name when the row was made
    Column("calls", BigInteger, nullable=False),
    Column("failed_calls", BigInteger, nullable=False),  # of those: paid for perhaps, and of no use
    Column("tokens", BigInteger, nullable=False),
    Column("cost_usd", Double, nullable=False),  # of the tokens whose price is known
    Column("unpriced_tokens", BigInteger, nullable=False),  # of the tokens: nobody knows their price
    Column("cache_hits", BigInteger, nullable=False),
    Column("saved_tokens", BigInteger, nullable=False),  # by the cache
    Column("saved_usd", Double, nullable=False),
    Column("unpriced_saved_tokens", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant_id", "hour", "collection_id", "job_id", "model"),
    Index(None, "hour"),
)

reservations = Table(  # calls under way: set aside before they are made, so that no two spend the same money
    "reservations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("collection_id", String(64), nullable=False),
    Column("model", String(128), nullable=False),
    Column("month", String(7), nullable=False),  # whose budget it is
    Column("jobs", JSON, nullable=False),  # by id, the weights by which they share it; none: of searches
    Column("tokens", BigInteger, nullable=False),
    Column("cost_usd", Double),  # NULL: their price is not known
    Column("batch_id", String(64)),  # of this attempt: it is charged in full when that is over and did not settle it
    Column("attempt", Integer),  # NULL: the batch is put aside for an order, whose end settles it
    Column("order_id", String(64)),  # of that order; NULL: there is none yet
    Column("expires_at", Double),  # of searches: then it is charged in full
    Column("made_at", Double, nullable=False),
    Index(None, "batch_id"),
    Index(None, "order_id"),
    Index(None, "expires_at"),
)

purses = Table(  # what a budget counts: of a tenant and month, or of a job
    "purses",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("name", String(80), nullable=False),  # month:2026-11, or job:<id>
    Column("spent_usd", Double, nullable=False),
    Column("reserved_usd", Double, nullable=False),
    PrimaryKeyConstraint("tenant_id", "name"),
)
