"""Tables of the installation and its tenants: shares, limits, pauses, and whose turn it is."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
)

from .conventions import metadata, partial

installation = Table(  # one row: facts of this installation
    "installation",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="single"), primary_key=True),
    Column(
        "admin_key_hash", LargeBinary, nullable=False
    ),  # blake2b-256 of the key: it has 256 random bits, no salt needed
    Column("created_at", Double, nullable=False),
    Column("paused_at", Double),  # since then nothing is handed out; NULL: work goes on
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("weight", Double, nullable=False, default=1.0),  # its share of the workers beside those of the others
    Column("max_backlog_documents", BigInteger),  # a limit of its own; NULL: that of the installation
    Column("max_backlog_bytes", BigInteger),
    Column("monthly_budget_usd", Double),  # it may cost no more in a month; NULL: whatever it costs
    Column("paused_at", Double),
    Column("record_queries", Boolean, nullable=False, default=True),  # whether some of its searches may be recorded
    Column("sweeps_begun", BigInteger, nullable=False, default=0),  # by collectors of packs and more: ``sweeps.py``
    Column("sweeps_ended", BigInteger, nullable=False, default=0),
    CheckConstraint("weight > 0", name="weight"),
    partial("ix_tenants_paused", "id", where="paused_at IS NOT NULL"),  # whoever hands out work asks for them
)

backlogs = Table(  # what waits in the state queued: came minus left; see ``backlogs.py``
    "backlogs",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), primary_key=True),
    Column("came_documents", BigInteger, nullable=False, default=0),
    Column("came_bytes", BigInteger, nullable=False, default=0),
    Column("left_documents", BigInteger, nullable=False, default=0),
    Column("left_bytes", BigInteger, nullable=False, default=0),
    Column("seen_documents", BigInteger, nullable=False, default=0),  # left_documents at ``seen_at``
    Column("seen_bytes", BigInteger, nullable=False, default=0),
    Column("seen_at", Double),
    Column("documents_per_s", Double),  # how fast they left lately; NULL: nobody knows
    Column("bytes_per_s", Double),
)

accounts = Table(  # of tenants (lane -1) and of the priorities of one, among themselves; see ``ledger/turns.py``
    "accounts",
    metadata,
    Column("stage", String(8), nullable=False),
    Column("lane", Integer, nullable=False),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("started", Double, nullable=False),  # the round of its last turn
    Column("settled", Double, nullable=False),  # the round in which that is paid for
    PrimaryKeyConstraint("stage", "tenant_id", "lane"),  # in this order: all lanes of a tenant are read together
    Index(None, "stage", "lane", "started"),  # the round of the last turn of a stage
)
