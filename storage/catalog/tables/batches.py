"""The table of units of queue work: what the queue carries hints of."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from .conventions import metadata, one_of, partial
from .documents import NORMAL

BATCH_STAGES = ("chunk", "embed", "index", "expire", "rollback", "merge", "swap", "follow", "check")
BATCH_STATES = ("ready", "sent", "running", "done", "dead")
# Until a budget is raised, or the month ends; until a person has acted; for a while; or until an order at a provider is
# over. In this order they are told: by the alphabet.
POSTPONED = ("job_budget", "month_budget", "paused", "retrying", "waits_for_order")
GOES_ON_BY_ITSELF = POSTPONED[3:]
# As one truth value: told the stage and the state, SQLite would prefer the index by which batches are dispatched.
_STAGED = "(stage = 'index' AND state IN ('ready', 'sent', 'running') AND size_bytes > 0) IS TRUE"
_OPEN_ROLLBACK = "stage = 'rollback' AND state IN ('ready', 'sent', 'running')"

batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("generation_id", ForeignKey("generations.id"), nullable=False),
    Column("shard", Integer, nullable=False),
    Column("stage", String(8), one_of("stage", BATCH_STAGES), nullable=False),
    Column("state", String(8), one_of("state", BATCH_STATES), nullable=False),
    Column("group_id", String(64), nullable=False),  # embed parts of one group are indexed together; else its own id
    Column("part", Integer, nullable=False, default=0),
    Column("priority", Integer, nullable=False, default=NORMAL),  # that of its documents
    Column("express", Boolean, nullable=False, default=False),  # short, and sent to who works on nothing else
    Column("attempts", Integer, nullable=False, default=0),
    Column("first_attempt_at", Double),  # when its documents were first worked on, in an earlier batch perhaps
    Column("last_attempt_at", Double),
    Column("owner", String(128)),
    Column("lease_until", Double),  # running: the claim; sent: when to send it again
    Column("next_attempt_at", Double, nullable=False, default=0.0),
    Column("document_count", Integer, nullable=False, default=0),
    Column("chunk_count", Integer, nullable=False, default=0),
    Column("size_bytes", BigInteger, nullable=False, default=0),
    Column("input", Text),  # staging object to read
    Column("output", Text),  # staging object written
    Column("reembedding_id", String(64)),  # it copies documents from one generation to another, and holds no versions
    Column("details", JSON(none_as_null=True)),  # embed: its versions; merge: segments in; swap: the built segment
    Column("error", Text),
    Column("postponed", String(16), one_of("postponed", POSTPONED)),  # it waits by no fault of its own, for ``error``
    Column("aside_since", Double),  # embed: it waits for an order; NULL: it is worked on as usual
    Column("order_id", String(64)),  # of which it is a part
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    UniqueConstraint("group_id", "stage", "part"),
    Index("ix_batches_dispatch", "stage", "state", "next_attempt_at", "id"),
    Index("ix_batches_leases", "state", "lease_until"),
    partial("ix_batches_ended", "finished_at", "id", where="finished_at IS NOT NULL"),
    Index(None, "generation_id", "stage", "state"),
    partial(  # for their sum
        "ix_batches_staged", "shard", "tenant_id", "priority", "chunk_count", where=_STAGED
    ),
    partial("ix_batches_aside", "order_id", "id", where="aside_since IS NOT NULL"),
    partial("ix_batches_reembedding", "reembedding_id", "state", where="reembedding_id IS NOT NULL"),
    partial("uq_batches_one_rollback", "generation_id", where=_OPEN_ROLLBACK, unique=True),
)

# What was embedded for the writer of a shard: removals and changes of metadata have no bytes.
IS_STAGED = text(_STAGED)
