"""The table of orders: vectors of many chunks that a provider makes for half the price, within a day."""

from sqlalchemy import JSON, BigInteger, Column, Double, ForeignKey, Index, Integer, String, Table, Text

from .conventions import metadata, one_of, partial

ORDER_STATES = ("gathered", "placing", "placed", "over")
_IS_OPEN = "state <> 'over'"

orders = Table(
    "orders",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("generation_id", String(64), nullable=False),  # which may go before its order is over
    Column("state", String(16), one_of("state", ORDER_STATES), nullable=False),
    Column("chunk_count", Integer, nullable=False),  # of its batches, when they were gathered
    Column("tokens", BigInteger, nullable=False),  # that it asks for
    Column("file_id", String(128)),  # of the provider: what it is given
    Column("provider_id", String(128)),  # the order's name there; NULL: nobody knows it yet
    Column("attempts", Integer, nullable=False, default=0),  # at placing it
    Column("owner", String(128)),  # who works on it
    Column("lease_until", Double),
    Column("next_look_at", Double, nullable=False),
    Column("repeated", JSON(none_as_null=True)),  # by batch, the rows whose texts another batch of its file asks for
    Column("told", Text),  # how it goes, for people
    Column("created_at", Double, nullable=False),
    Column("placing_at", Double),  # when the provider may have been told first
    Column("finished_at", Double),
    partial("ix_orders_open", "next_look_at", "id", where=_IS_OPEN),
    Index(None, "finished_at"),
)
