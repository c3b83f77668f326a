"""Tables of what was submitted: jobs, documents and their versions."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    literal_column,
)
from sqlalchemy.engine.default import DefaultExecutionContext

from .conventions import metadata, one_of, partial

JOB_STATES = ("running", "done", "cancelled")
VERSION_ACTIONS = ("put", "update", "delete", "trim")
VERSION_FINAL_STATES = ("indexed", "failed", "cancelled", "superseded", "deleted", "trimmed", "expired", "dropped")
VERSION_STATES = ("queued", "chunking", "embedding", "indexing", "deleting", "trimming", *VERSION_FINAL_STATES)
# States of a newest version after which the document is in its collection no more.
GONE = ("deleted", "expired", "dropped")
PRIORITIES = ("high", "normal", "low", "economy")  # stored as their place in this list
NORMAL, ECONOMY = PRIORITIES.index("normal"), PRIORITIES.index("economy")  # economy: embedded for less, within a day
_ENDED = tuple(word for word in VERSION_FINAL_STATES if word != "indexed")
_NEVER_SERVED_AGAIN = f"state IN ({', '.join(repr(word) for word in _ENDED)})"
_MAY_EXPIRE = "state = 'indexed' AND expires_at IS NOT NULL"
_DEAD_WITH_BYTES = "state = 'failed' AND pack <> ''"

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("state", String(16), one_of("state", JOB_STATES), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("cache_hits", BigInteger, nullable=False, default=0),  # chunks whose vectors were in the cache
    Column("chunks_reused", BigInteger, nullable=False, default=0),  # chunks whose vectors the index had
    Column("unchanged", BigInteger, nullable=False, default=0),  # submitted documents that were already here
    Column("embedded_tokens", BigInteger, nullable=False, default=0),  # of the texts that the model was given
    Column("cost_usd", Double, default=0.0),  # of those; NULL: their price is not known
    Column("budget_usd", Double),  # it may cost no more; NULL: whatever it costs
    Column("pace", JSON(none_as_null=True)),  # how fast it moves: ``pace.py``; NULL: nothing was embedded yet
    Column("webhook_url", Text),  # who is told when it ends
    Column("pruned", JSON(none_as_null=True)),  # what its versions told whose rows are gone: ``history.py``
    Index(None, "tenant_id", "created_at"),
    Index(None, "state"),
    partial("ix_jobs_cache_hits", "cache_hits", where="cache_hits > 0"),  # for their sum
    partial("ix_jobs_chunks_reused", "chunks_reused", where="chunks_reused > 0"),
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
    Column("generation_id", ForeignKey("generations.id"), nullable=False),  # whose index served it first, or is to
    Column("document_id", String(64), nullable=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("action", String(8), one_of("action", VERSION_ACTIONS), nullable=False, default="put"),
    Column("number", BigInteger),  # NULL for a trim, which makes no version: it takes chunks out of one
    Column("state", String(16), one_of("state", VERSION_STATES), nullable=False),
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
    partial(  # with the size, for the sum of what waits
        "ix_versions_admission", "collection_id", "priority", "id", "size_bytes", where="state = 'queued'"
    ),
    partial("ix_versions_joins", "batch_id", where="state = 'embedding'"),
    partial("ix_versions_ended", "finished_at", "id", where=_NEVER_SERVED_AGAIN),
    partial("ix_versions_dead", "collection_id", "document_id", where="state = 'failed'"),
    partial("ix_versions_dead_bytes", "finished_at", where=_DEAD_WITH_BYTES),
    partial("ix_versions_expiry", "collection_id", "expires_at", where=_MAY_EXPIRE),
    partial(  # never served twice
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
