"""Every SQL table: the catalog (tenants, collections, generations) and the ledger (jobs, documents, versions, batches).

Times are seconds since 1970 as float, passed in by the caller. Every row below a tenant carries its tenant.
States are checked by the database, so that no program can write a word that another does not know; which may follow
which is in ``transitions.py``.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    literal_column,
    text,
)
from sqlalchemy.engine.default import DefaultExecutionContext

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

GENERATION_STATES = ("active", "building", "retired")
JOB_STATES = ("running", "done", "cancelled")
VERSION_ACTIONS = ("put", "update", "delete", "trim")
VERSION_FINAL_STATES = ("indexed", "failed", "cancelled", "superseded", "deleted", "trimmed", "expired", "dropped")
VERSION_STATES = ("queued", "chunking", "embedding", "indexing", "deleting", "trimming", *VERSION_FINAL_STATES)
# States of a newest version after which the document is in its collection no more.
GONE = ("deleted", "expired", "dropped")
MANIFEST_OPERATIONS = ("publish", "merge", "rollback", "fork", "repair")
BATCH_STAGES = ("chunk", "embed", "index", "expire", "rollback", "merge", "swap")
DELIVERY_STATES = ("waiting", "sending", "delivered", "dead", "dropped")
BATCH_STATES = ("ready", "sent", "running", "done", "dead")
PRIORITIES = ("high", "normal", "low")  # stored as their place in this list
NORMAL = PRIORITIES.index("normal")
_ENDED = tuple(word for word in VERSION_FINAL_STATES if word != "indexed")
_NEVER_SERVED_AGAIN = f"state IN ({', '.join(repr(word) for word in _ENDED)})"
_MAY_EXPIRE = "state = 'indexed' AND expires_at IS NOT NULL"
_DEAD_WITH_BYTES = "state = 'failed' AND pack <> ''"
_OPEN_DELIVERY = "state IN ('waiting', 'sending')"
# As one truth value: told the stage and the state, SQLite would prefer the index by which batches are dispatched.
_STAGED = "(stage = 'index' AND state IN ('ready', 'sent', 'running') AND size_bytes > 0) IS TRUE"
_OPEN_ROLLBACK = "stage = 'rollback' AND state IN ('ready', 'sent', 'running')"


def _one_of(column: str, words: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(word) for word in words)})", name=column)


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


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
    Column("paused_at", Double),
    CheckConstraint("weight > 0", name="weight"),
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
    PrimaryKeyConstraint("stage", "lane", "tenant_id"),
)

collections = Table(
    "collections",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("keep_versions", Integer),  # retention of its own; NULL: that of the installation
    Column("keep_s", Double),
    UniqueConstraint("tenant_id", "name"),
)

generations = Table(
    "generations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("state", String(16), _one_of("state", GENERATION_STATES), nullable=False),
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
    Column("next_chunk_id", BigInteger, nullable=False, default=1),
    Column("live_chunks", BigInteger, nullable=False, default=0),
    Column("published_at", Double),
    Column("created_at", Double, nullable=False),
    Index(None, "collection_id", "state"),
    Index(None, "shard"),
)

manifests = Table(  # the versions of a generation that are kept: a manifest without a row is nobody's
    "manifests",
    metadata,
    Column("generation_id", ForeignKey("generations.id"), nullable=False),
    Column("version", BigInteger, nullable=False),  # each is one more than the one before
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),  # of the object
    Column("operation", String(16), _one_of("operation", MANIFEST_OPERATIONS), nullable=False),
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

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("state", String(16), _one_of("state", JOB_STATES), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("cache_hits", BigInteger, nullable=False, default=0),  # chunks whose vectors were in the cache
    Column("chunks_reused", BigInteger, nullable=False, default=0),  # chunks whose vectors the index had
    Column("unchanged", BigInteger, nullable=False, default=0),  # submitted documents that were already here
    Column("embedded_tokens", BigInteger, nullable=False, default=0),  # of the texts that the model was given
    Column("cost_usd", Double, default=0.0),  # of those; NULL: their price is not known
    Column("pace", JSON(none_as_null=True)),  # how fast it moves: ``pace.py``; NULL: nothing was embedded yet
    Column("webhook_url", Text),  # who is told when it ends
    Column("pruned", JSON(none_as_null=True)),  # what its versions told whose rows are gone: ``history.py``
    Index(None, "tenant_id", "created_at"),
    Index(None, "state"),
    _partial("ix_jobs_cache_hits", "cache_hits", where="cache_hits > 0"),  # for their sum
    _partial("ix_jobs_chunks_reused", "chunks_reused", where="chunks_reused > 0"),
)

idempotency_keys = Table(  # submissions by the keys of their producers, so that the same one again is not another one
    "idempotency_keys",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("key", String(255), nullable=False),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("digest", LargeBinary, nullable=False),  # blake2b-256 of what was submitted
    Column("answer", JSON, nullable=False),  # what was told, the job's state apart
    Column("created_at", Double, nullable=False),
    PrimaryKeyConstraint("tenant_id", "key"),
    Index(None, "collection_id"),
    Index(None, "created_at"),
)


def _same_as_newest(context: DefaultExecutionContext) -> Any:
    return context.get_current_parameters()["newest"]  # type: ignore[no-untyped-call]


documents = Table(
    "documents",
    metadata,
    Column("id", String(64), nullable=False),  # unique in its collection: a fork has documents of the same ids
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("source", Text, nullable=False),  # the producer's own name for it: a path, a URL, a key
    Column("newest", BigInteger, nullable=False),  # number of its newest version, those rolled back left out
    Column("highest", BigInteger, nullable=False, default=_same_as_newest),  # version number ever accepted
    Column("created_at", Double, nullable=False),
    PrimaryKeyConstraint("id", "collection_id"),
    UniqueConstraint("collection_id", "source"),
    Index(None, "tenant_id", "collection_id", "id"),
)

versions = Table(  # document versions: what was submitted or asked of a document, and how far it came
    "versions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("generation_id", ForeignKey("generations.id"), nullable=False),
    Column("document_id", String(64), nullable=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("action", String(8), _one_of("action", VERSION_ACTIONS), nullable=False, default="put"),
    Column("number", BigInteger),  # NULL for a trim, which makes no version: it takes chunks out of one
    Column("state", String(16), _one_of("state", VERSION_STATES), nullable=False),
    Column("priority", Integer, nullable=False, default=NORMAL),  # its place in `PRIORITIES`
    Column("batch_id", String(64)),  # the chunk batch it is in, then its embed group; of a removal its index batch
    Column("filename", Text, nullable=False),
    Column("media_type", String(255)),  # as declared by the producer; NULL: found out when parsing
    Column("title", Text),  # given by the producer, or found when parsing
    Column("metadata", JSON, nullable=False),
    Column("event_time", Double),
    Column("expires_at", Double),
    Column("details", JSON(none_as_null=True)),  # of a trim: its chunks
    Column("content_hash", LargeBinary, nullable=False),  # blake2b-256 of the document's bytes; a removal has none
    Column("metadata_hash", LargeBinary, nullable=False),  # blake2b-256 of title, metadata and times
    Column("pack", Text, nullable=False),  # object that holds the bytes; empty for a removal
    Column("pack_offset", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("chunk_count", Integer),
    Column("stage", String(16)),  # where it failed
    Column("error_code", String(64)),
    Column("error", Text),
    Column("attempts", Integer),  # at the stage where it failed, in company and alone
    Column("first_attempt_at", Double),  # of a document that failed: when it was first worked on, in any stage
    Column("last_attempt_at", Double),
    Column("former_death", JSON(none_as_null=True)),  # what it failed of before it was retried; until it is indexed
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("indexed_version", BigInteger),  # manifest version that first served it
    ForeignKeyConstraint(["document_id", "collection_id"], ["documents.id", "documents.collection_id"]),
    UniqueConstraint("document_id", "collection_id", "number"),
    Index(  # covers JobInfo
        "ix_versions_progress",
        *("job_id", "state", "batch_id", "generation_id", "chunk_count", "indexed_version", "size_bytes"),
    ),
    Index(None, "batch_id"),
    Index(None, "pack"),  # for the collector: is it in use?
    # No index begins with the state: SQLite would prefer it to a list of ids and look at every version in that state.
    _partial(  # with the size, for the sum of what waits
        "ix_versions_admission", "generation_id", "priority", "id", "size_bytes", where="state = 'queued'"
    ),
    _partial("ix_versions_joins", "batch_id", where="state = 'embedding'"),
    _partial("ix_versions_ended", "finished_at", "id", where=_NEVER_SERVED_AGAIN),
    _partial("ix_versions_dead", "collection_id", "document_id", where="state = 'failed'"),
    _partial("ix_versions_dead_bytes", "finished_at", where=_DEAD_WITH_BYTES),
    _partial("ix_versions_expiry", "generation_id", "expires_at", where=_MAY_EXPIRE),
    _partial(  # never served twice
        "uq_versions_one_indexed", "document_id", "collection_id", where="state = 'indexed'", unique=True
    ),
)
OF_DOCUMENT = and_(versions.c.document_id == documents.c.id, versions.c.collection_id == documents.c.collection_id)
# Conditions with the word in them, not a parameter: only so does a server see that a partial index answers them.
IS_QUEUED = versions.c.state == literal_column("'queued'")
IS_EMBEDDING = versions.c.state == literal_column("'embedding'")
NEVER_SERVED_AGAIN = versions.c.state.in_([literal_column(repr(word)) for word in _ENDED])
IS_INDEXED = versions.c.state == literal_column("'indexed'")
IS_DEAD = versions.c.state == literal_column("'failed'")
HAS_DEAD_BYTES = and_(IS_DEAD, versions.c.pack != literal_column("''"))
HAS_CACHE_HITS = jobs.c.cache_hits > literal_column("0")
HAS_CHUNKS_REUSED = jobs.c.chunks_reused > literal_column("0")

batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("generation_id", ForeignKey("generations.id"), nullable=False),
    Column("shard", Integer, nullable=False),
    Column("stage", String(8), _one_of("stage", BATCH_STAGES), nullable=False),
    Column("state", String(8), _one_of("state", BATCH_STATES), nullable=False),
    Column("group_id", String(64), nullable=False),  # embed parts of one group are indexed together; else its own id
    Column("part", Integer, nullable=False, default=0),
    Column("priority", Integer, nullable=False, default=NORMAL),  # that of its documents
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
    Column("details", JSON(none_as_null=True)),  # embed: its versions; merge: segments in; swap: the built segment
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    UniqueConstraint("group_id", "stage", "part"),
    Index("ix_batches_dispatch", "stage", "state", "next_attempt_at", "id"),
    Index("ix_batches_leases", "state", "lease_until"),
    _partial("ix_batches_ended", "finished_at", "id", where="finished_at IS NOT NULL"),
    Index(None, "generation_id", "stage", "state"),
    _partial(  # for their sum
        "ix_batches_staged", "shard", "tenant_id", "priority", "chunk_count", where=_STAGED
    ),
    _partial("uq_batches_one_rollback", "generation_id", where=_OPEN_ROLLBACK, unique=True),
)

# What was embedded for the writer of a shard: removals and changes of metadata have no bytes.
IS_STAGED = text(_STAGED)

webhook_secrets = Table(  # what a tenant's webhooks are signed with: whoever signs needs the secret itself
    "webhook_secrets",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), primary_key=True),
    Column("secret", Text, nullable=False),
    Column("former", Text),  # still signs too, until then
    Column("former_until", Double),
    Column("created_at", Double, nullable=False),
)

deliveries = Table(  # the outbox of webhooks: written by the transaction that ends a job
    "deliveries",
    metadata,
    Column("id", String(64), primary_key=True),  # the webhook-id: the same at every attempt
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("job_id", String(64), nullable=False),  # which may be gone: nobody is told of it then
    Column("url", Text, nullable=False),
    Column("state", String(16), _one_of("state", DELIVERY_STATES), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("owner", String(128)),
    Column("next_attempt_at", Double, nullable=False),  # sending: when the claim ends
    Column("status", Integer),  # of the last answer
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Index(None, "tenant_id", "id"),
    _partial("ix_deliveries_open", "next_attempt_at", "id", where=_OPEN_DELIVERY),
    _partial("ix_deliveries_due", "tenant_id", "next_attempt_at", "id", where=_OPEN_DELIVERY),
    _partial("ix_deliveries_sending", "tenant_id", "next_attempt_at", where="state = 'sending'"),
    _partial("ix_deliveries_ended", "finished_at", "id", where="finished_at IS NOT NULL"),
)
IS_SENDING = deliveries.c.state == literal_column("'sending'")
IS_OPEN_DELIVERY = deliveries.c.state.in_([literal_column("'waiting'"), literal_column("'sending'")])
