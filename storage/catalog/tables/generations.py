"""Tables of what is served: collections, generations, their versions, and who reads or writes them."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from .conventions import metadata, one_of

GENERATION_STATES = ("active", "building", "retired", "dropped")
MANIFEST_OPERATIONS = ("publish", "merge", "rollback", "fork", "repair", "switch")

collections = Table(
    "collections",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("keep_versions", Integer),  # retention of its own; NULL: that of the installation
    Column("keep_s", Double),
    Column("webhook_url", Text),  # who is told of its jobs that name nobody; NULL: as the tenant has it
    UniqueConstraint("tenant_id", "name"),
)

generations = Table(
    "generations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("state", String(16), one_of("state", GENERATION_STATES), nullable=False),
    Column("model", String(128), nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("metric", String(8), nullable=False),  # cosine, dot, l2
    Column("quantization", String(8), nullable=False, default="none"),  # int8: graphs are walked by int8 records
    Column("chunking", JSON, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("manifest", Text),  # object name of the current manifest; NULL until the first publish
    Column(
        "version", BigInteger, nullable=False, default=0
    ),  # version of that manifest; also the read-your-writes sequence
    Column("writer_epoch", BigInteger, nullable=False, default=0),  # epoch that published it
    Column("next_chunk_id", BigInteger, nullable=False, default=1),  # the ids of generations of one collection differ
    Column("live_chunks", BigInteger, nullable=False, default=0),
    Column("published_at", Double),
    Column("active_since", Double),  # or was last; NULL: it never served
    Column("created_at", Double, nullable=False),
    Column("sweeps_begun", BigInteger, nullable=False, default=0),  # by collectors of its files: ``sweeps.py``
    Column("sweeps_ended", BigInteger, nullable=False, default=0),
    Index(None, "collection_id", "state"),
    Index(None, "shard"),
    Index(None, "tenant_id"),
)

manifests = Table(  # the versions of a generation that are kept: a manifest without a row is nobody's
    "manifests",
    metadata,
    Column("generation_id", ForeignKey("generations.id"), nullable=False),
    Column("version", BigInteger, nullable=False),  # each is one more than the one before
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),  # of the object
    Column("operation", String(16), one_of("operation", MANIFEST_OPERATIONS), nullable=False),
    Column("origin_generation_id", String(64)),  # rollback and fork: whose segments it began with
    Column("origin_version", BigInteger),
    Column("writer_epoch", BigInteger, nullable=False),
    Column("segment_count", Integer, nullable=False),
    Column("live_chunks", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),  # of all files that it names
    Column("created_at", Double, nullable=False),
    Column("followed_at", Double),  # when the next version came; NULL: it is the current one
    PrimaryKeyConstraint("generation_id", "version"),
    Index(None, "tenant_id"),
)

tags = Table(  # names that keep a version for as long as they exist
    "tags",
    metadata,
    Column("generation_id", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    PrimaryKeyConstraint("generation_id", "name"),
    ForeignKeyConstraint(["generation_id", "version"], ["manifests.generation_id", "manifests.version"]),
    Index(None, "generation_id", "version"),
)

reader_leases = Table(  # versions that live readers use; for the collector, which ends those whose beat stands still
    "reader_leases",
    metadata,
    Column("reader", String(128), nullable=False),  # a process; never used twice
    Column("generation_id", String(64), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),  # begins anywhere; raised by the reader every minute or so
    PrimaryKeyConstraint("reader", "generation_id", "version"),
    Index(None, "generation_id", "version"),
)

shards = Table(  # the writer's lease
    "shards",
    metadata,
    Column("shard", Integer, primary_key=True),
    Column("owner", String(128)),
    Column("epoch", BigInteger, nullable=False, default=0),
    Column("expires_at", Double, nullable=False, default=0.0),
)
