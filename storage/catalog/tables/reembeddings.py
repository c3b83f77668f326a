"""The table of re-embeddings: a generation of a collection that follows its active one, and how far it came."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
)

from .conventions import metadata, one_of, partial

REEMBEDDING_STATES = (
    *("copying", "checking", "ready", "refused", "switching", "switched", "returning", "returned"),
    *("done", "cancelled"),
)
REEMBEDDING_ENDS = ("done", "cancelled")
_IS_OPEN = f"state NOT IN ({', '.join(repr(word) for word in REEMBEDDING_ENDS)})"

reembeddings = Table(
    "reembeddings",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("source_id", ForeignKey("generations.id"), nullable=False),  # the active generation, which is followed
    Column("target_id", ForeignKey("generations.id"), nullable=False),  # the one that follows it
    Column("state", String(16), one_of("state", REEMBEDDING_STATES), nullable=False),
    Column("base_version", BigInteger, nullable=False, default=0),  # the target holds what this one of the source does
    Column("source_version", BigInteger),  # what is copied now, as far as it differs; NULL: nothing
    Column("cursor", String(64)),  # the last document of that for which a slice was made
    Column("planned", Boolean, nullable=False, default=False),  # there are slices for all of that
    Column("switches", Boolean, nullable=False, default=True),  # by itself, when the check passes
    Column("forced", Boolean, nullable=False, default=False),  # whatever the check says
    Column("economy", Boolean, nullable=False, default=False),  # for half the price, within a day: see ``orders.py``
    Column("keep_s", Double, nullable=False),  # how long the generation that served before is kept after the switch
    Column("chunks_total", BigInteger, nullable=False, default=0),  # of the first version that is copied
    Column("chunks_copied", BigInteger, nullable=False, default=0),
    Column("documents_copied", BigInteger, nullable=False, default=0),
    Column("cache_hits", BigInteger, nullable=False, default=0),
    Column("chunks_reused", BigInteger, nullable=False, default=0),  # whose vectors the target had already
    Column("embedded_tokens", BigInteger, nullable=False, default=0),
    Column("cost_usd", Double, default=0.0),  # of those; NULL: their price is not known
    Column("budget_usd", Double),  # NULL: whatever it costs
    Column("report", JSON(none_as_null=True)),  # of the check before the switch
    Column("error", Text),  # why it stands still, though nobody paused it
    Column("paused_at", Double),
    Column("hold_until", Double),  # until then nothing is published in the source
    Column("created_at", Double, nullable=False),
    Column("switched_at", Double),
    Column("finished_at", Double),
    Index(None, "collection_id"),
    Index(None, "source_id"),
    partial("uq_reembeddings_one_open", "collection_id", where=_IS_OPEN, unique=True),
)
