"""The first schema: tenants, collections, generations, and the ledger of documents and batches."""

import sqlalchemy as sa
from alembic import op

from penstock.storage.catalog.transitions import guard  # absolute: Alembic loads this file by its path

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

VERSION_STATES = (
    "queued chunking embedding indexing deleting trimming indexed failed cancelled superseded deleted trimmed expired "
    "dropped"
)


def upgrade() -> None:
    """Create every table, parents first."""
    _create_installation()
    _create_tenants()
    _create_collections()
    _create_generations()
    _create_manifests()
    _create_reembeddings()
    _create_jobs()
    _create_idempotency_keys()
    _create_documents()
    _create_versions()
    _create_batches()
    _create_costs()
    _create_orders()
    _create_webhooks()
    _create_schedules()
    _create_questions()
    guard(op.get_bind())


def _key(name: str, parent: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(64), sa.ForeignKey(f"{parent}.id"), nullable=False)


def _time(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=nullable)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _state(name: str, width: int, words: str) -> sa.Column[str]:
    listed = ", ".join(repr(word) for word in words.split())
    return sa.Column(name, sa.String(width), sa.CheckConstraint(f"{name} IN ({listed})", name=name), nullable=False)


def _optional_state(name: str, width: int, words: str) -> sa.Column[str]:
    listed = ", ".join(repr(word) for word in words.split())
    return sa.Column(name, sa.String(width), sa.CheckConstraint(f"{name} IN ({listed})", name=name))


def _create_installation() -> None:
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="single"), primary_key=True),
        sa.Column("admin_key_hash", sa.LargeBinary, nullable=False),
        _time("created_at"),
        _time("paused_at", nullable=True),
    )
    op.create_table(
        "shards",
        sa.Column("shard", sa.Integer, primary_key=True),
        sa.Column("owner", sa.String(128)),
        _count("epoch"),
        _time("expires_at"),
    )


def _create_tenants() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(64), primary_key=True),
        _time("created_at"),
        sa.Column("weight", sa.Double, nullable=False),
        sa.Column("max_backlog_documents", sa.BigInteger),
        sa.Column("max_backlog_bytes", sa.BigInteger),
        sa.Column("monthly_budget_usd", sa.Double),
        _time("paused_at", nullable=True),
        sa.Column("record_queries", sa.Boolean, nullable=False),
        _count("sweeps_begun"),
        _count("sweeps_ended"),
        sa.CheckConstraint("weight > 0", name="weight"),
    )
    _create_partial_index("ix_tenants_paused", "tenants", ["id"], "paused_at IS NOT NULL")
    op.create_table(
        "backlogs",
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id"), primary_key=True),
        *(_count(f"{which}_{what}") for which in ("came", "left", "seen") for what in ("documents", "bytes")),
        _time("seen_at", nullable=True),
        _time("documents_per_s", nullable=True),
        _time("bytes_per_s", nullable=True),
    )
    op.create_table(
        "accounts",
        sa.Column("stage", sa.String(8), nullable=False),
        sa.Column("lane", sa.Integer, nullable=False),
        _key("tenant_id", "tenants"),
        _time("started"),
        _time("settled"),
        sa.PrimaryKeyConstraint("stage", "tenant_id", "lane"),
    )
    op.create_index("ix_accounts_stage_lane_started", "accounts", ["stage", "lane", "started"])


def _create_collections() -> None:
    op.create_table(
        "collections",
        sa.Column("id", sa.String(64), primary_key=True),
        _key("tenant_id", "tenants"),
        sa.Column("name", sa.String(64), nullable=False),
        _time("created_at"),
        sa.Column("keep_versions", sa.Integer),
        _time("keep_s", nullable=True),
        sa.Column("webhook_url", sa.Text),
        sa.UniqueConstraint("tenant_id", "name"),
    )


def _create_generations() -> None:
    op.create_table(
        "generations",
        sa.Column("id", sa.String(64), primary_key=True),
        _key("tenant_id", "tenants"),
        _key("collection_id", "collections"),
        _state("state", 16, "active building retired dropped"),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("dimensions", sa.Integer, nullable=False),
        sa.Column("metric", sa.String(8), nullable=False),
        sa.Column("quantization", sa.String(8), nullable=False),
        sa.Column("chunking", sa.JSON, nullable=False),
        sa.Column("shard", sa.Integer, nullable=False),
        sa.Column("manifest", sa.Text),
        _count("version"),
        _count("writer_epoch"),
        _count("next_chunk_id"),
        _count("live_chunks"),
        _time("published_at", nullable=True),
        _time("active_since", nullable=True),
        _time("created_at"),
        _count("sweeps_begun"),
        _count("sweeps_ended"),
    )
    op.create_index("ix_generations_collection_id_state", "generations", ["collection_id", "state"])
    op.create_index("ix_generations_shard", "generations", ["shard"])
    op.create_index("ix_generations_tenant_id", "generations", ["tenant_id"])


def _create_manifests() -> None:
    op.create_table(
        "manifests",
        _key("generation_id", "generations"),
        _count("version"),
        _key("tenant_id", "tenants"),
        sa.Column("name", sa.Text, nullable=False),
        _state("operation", 16, "publish merge rollback fork repair switch"),
        sa.Column("origin_generation_id", sa.String(64)),
        sa.Column("origin_version", sa.BigInteger),
        _count("writer_epoch"),
        sa.Column("segment_count", sa.Integer, nullable=False),
        _count("live_chunks"),
        _count("size_bytes"),
        _time("created_at"),
        _time("followed_at", nullable=True),
        sa.PrimaryKeyConstraint("generation_id", "version"),
    )
    op.create_index("ix_manifests_tenant_id", "manifests", ["tenant_id"])
    op.create_table(
        "tags",
        sa.Column("generation_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        _key("tenant_id", "tenants"),
        _count("version"),
        _time("created_at"),
        sa.PrimaryKeyConstraint("generation_id", "name"),
        sa.ForeignKeyConstraint(["generation_id", "version"], ["manifests.generation_id", "manifests.version"]),
    )
    op.create_index("ix_tags_generation_id_version", "tags", ["generation_id", "version"])
    op.create_table(
        "reader_leases",
        sa.Column("reader", sa.String(128), nullable=False),
        sa.Column("generation_id", sa.String(64), nullable=False),
        _count("version"),
        _count("beat"),
        sa.PrimaryKeyConstraint("reader", "generation_id", "version"),
    )
    op.create_index("ix_reader_leases_generation_id_version", "reader_leases", ["generation_id", "version"])


def _create_reembeddings() -> None:
    states = "copying checking ready refused switching switched returning returned done cancelled"
    op.create_table(
        "reembeddings",
        sa.Column("id", sa.String(64), primary_key=True),
        _key("tenant_id", "tenants"),
        _key("collection_id", "collections"),
        _key("source_id", "generations"),
        _key("target_id", "generations"),
        _state("state", 16, states),
        _count("base_version"),
        sa.Column("source_version", sa.BigInteger),
        sa.Column("cursor", sa.String(64)),
        *(sa.Column(name, sa.Boolean, nullable=False) for name in ("planned", "switches", "forced", "economy")),
        _time("keep_s"),
        *(_count(name) for name in ("chunks_total", "chunks_copied", "documents_copied", "cache_hits")),
        *(_count(name) for name in ("chunks_reused", "embedded_tokens")),
        *(sa.Column(name, sa.Double) for name in ("cost_usd", "budget_usd")),
        sa.Column("report", sa.JSON(none_as_null=True)),
        sa.Column("error", sa.Text),
        *(_time(name, nullable=True) for name in ("paused_at", "hold_until")),
        _time("created_at"),
        *(_time(name, nullable=True) for name in ("switched_at", "finished_at")),
    )
    for column in ("collection_id", "source_id"):
        op.create_index(f"ix_reembeddings_{column}", "reembeddings", [column])
    is_open = "state NOT IN ('done', 'cancelled')"
    _create_partial_index("uq_reembeddings_one_open", "reembeddings", ["collection_id"], is_open, unique=True)


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        _key("tenant_id", "tenants"),
        _key("collection_id", "collections"),
        _state("state", 16, "running done cancelled"),
        _time("created_at"),
        _time("finished_at", nullable=True),
        _count("cache_hits"),
        _count("chunks_reused"),
        _count("unchanged"),
        _count("embedded_tokens"),
        sa.Column("cost_usd", sa.Double),
        sa.Column("budget_usd", sa.Double),
        sa.Column("pace", sa.JSON(none_as_null=True)),
        sa.Column("webhook_url", sa.Text),
        sa.Column("pruned", sa.JSON(none_as_null=True)),
    )
    op.create_index("ix_jobs_tenant_id_created_at", "jobs", ["tenant_id", "created_at"])
    op.create_index("ix_jobs_state", "jobs", ["state"])
    _create_partial_index("ix_jobs_cache_hits", "jobs", ["cache_hits"], "cache_hits > 0")
    _create_partial_index("ix_jobs_chunks_reused", "jobs", ["chunks_reused"], "chunks_reused > 0")


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        _key("tenant_id", "tenants"),
        sa.Column("key", sa.String(255), nullable=False),
        _key("collection_id", "collections"),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("answer", sa.JSON, nullable=False),
        _time("created_at"),
        sa.PrimaryKeyConstraint("tenant_id", "key"),
    )
    op.create_index("ix_idempotency_keys_collection_id", "idempotency_keys", ["collection_id"])
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def _create_documents() -> None:
    op.create_table(
        "documents",
        sa.Column("id", sa.String(64), nullable=False),
        _key("tenant_id", "tenants"),
        _key("collection_id", "collections"),
        sa.Column("source", sa.Text, nullable=False),
        _count("newest"),
        _count("highest"),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id", "collection_id"),
        sa.UniqueConstraint("collection_id", "source"),
    )
    op.create_index("ix_documents_tenant_id_collection_id_id", "documents", ["tenant_id", "collection_id", "id"])


def _create_versions() -> None:
    op.create_table(
        "versions",
        sa.Column("id", sa.String(64), primary_key=True),
        _key("tenant_id", "tenants"),
        _key("collection_id", "collections"),
        _key("generation_id", "generations"),
        sa.Column("document_id", sa.String(64), nullable=False),
        _key("job_id", "jobs"),
        _state("action", 8, "put update delete trim"),
        sa.Column("number", sa.BigInteger),
        _state("state", 16, VERSION_STATES),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("batch_id", sa.String(64)),
        *_submitted(),
        sa.Column("chunk_count", sa.Integer),
        sa.Column("stage", sa.String(16)),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error", sa.Text),
        sa.Column("attempts", sa.Integer),
        _time("first_attempt_at", nullable=True),
        _time("last_attempt_at", nullable=True),
        sa.Column("former_death", sa.JSON(none_as_null=True)),
        _time("created_at"),
        _time("finished_at", nullable=True),
        sa.Column("indexed_version", sa.BigInteger),
        sa.ForeignKeyConstraint(["document_id", "collection_id"], ["documents.id", "documents.collection_id"]),
        sa.UniqueConstraint("document_id", "collection_id", "number"),
    )
    progress = ["job_id", "state", "batch_id", "generation_id", "chunk_count", "indexed_version", "size_bytes"]
    op.create_index("ix_versions_progress", "versions", progress)
    op.create_index("ix_versions_batch_id", "versions", ["batch_id"])
    op.create_index("ix_versions_pack", "versions", ["pack"])
    waiting = ["collection_id", "priority", "id", "size_bytes"]
    _create_partial_index("ix_versions_admission", "versions", waiting, "state = 'queued'")
    _create_partial_index("ix_versions_joins", "versions", ["batch_id"], "state = 'embedding'")
    ended = "state IN ('failed', 'cancelled', 'superseded', 'deleted', 'trimmed', 'expired', 'dropped')"
    _create_partial_index("ix_versions_ended", "versions", ["finished_at", "id"], ended)
    one = ["document_id", "collection_id"]
    _create_partial_index("uq_versions_one_indexed", "versions", one, "state = 'indexed'", unique=True)
    _create_partial_index("ix_versions_dead", "versions", ["collection_id", "document_id"], "state = 'failed'")
    with_bytes = "state = 'failed' AND pack <> ''"
    _create_partial_index("ix_versions_dead_bytes", "versions", ["finished_at"], with_bytes)
    may_expire = "state = 'indexed' AND expires_at IS NOT NULL"
    _create_partial_index("ix_versions_expiry", "versions", ["collection_id", "expires_at"], may_expire)


def _submitted() -> list[sa.Column[object]]:
    return [
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("media_type", sa.String(255)),
        sa.Column("title", sa.Text),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("event_time", sa.Double),
        sa.Column("expires_at", sa.Double),
        sa.Column("details", sa.JSON(none_as_null=True)),
        sa.Column("content_hash", sa.LargeBinary, nullable=False),
        sa.Column("metadata_hash", sa.LargeBinary, nullable=False),
        sa.Column("pack", sa.Text, nullable=False),
        sa.Column("pack_offset", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
    ]


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.String(64), primary_key=True),
        _key("tenant_id", "tenants"),
        _key("generation_id", "generations"),
        sa.Column("shard", sa.Integer, nullable=False),
        _state("stage", 8, "chunk embed index expire rollback merge swap follow check"),
        _state("state", 8, "ready sent running done dead"),
        sa.Column("group_id", sa.String(64), nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("express", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        _time("first_attempt_at", nullable=True),
        _time("last_attempt_at", nullable=True),
        sa.Column("owner", sa.String(128)),
        _time("lease_until", nullable=True),
        _time("next_attempt_at"),
        sa.Column("document_count", sa.Integer, nullable=False),
        sa.Column("chunk_count", sa.Integer, nullable=False),
        _count("size_bytes"),
        sa.Column("input", sa.Text),
        sa.Column("output", sa.Text),
        sa.Column("reembedding_id", sa.String(64)),
        sa.Column("details", sa.JSON(none_as_null=True)),
        sa.Column("error", sa.Text),
        _optional_state("postponed", 16, "job_budget month_budget paused retrying waits_for_order"),
        _time("aside_since", nullable=True),
        sa.Column("order_id", sa.String(64)),
        _time("created_at"),
        _time("finished_at", nullable=True),
        sa.UniqueConstraint("group_id", "stage", "part"),
    )
    op.create_index("ix_batches_dispatch", "batches", ["stage", "state", "next_attempt_at", "id"])
    op.create_index("ix_batches_leases", "batches", ["state", "lease_until"])
    _create_partial_index("ix_batches_ended", "batches", ["finished_at", "id"], "finished_at IS NOT NULL")
    op.create_index("ix_batches_generation_id_stage_state", "batches", ["generation_id", "stage", "state"])
    staged = "(stage = 'index' AND state IN ('ready', 'sent', 'running') AND size_bytes > 0) IS TRUE"
    _create_partial_index("ix_batches_staged", "batches", ["shard", "tenant_id", "priority", "chunk_count"], staged)
    copying = "reembedding_id IS NOT NULL"
    _create_partial_index("ix_batches_reembedding", "batches", ["reembedding_id", "state"], copying)
    open_rollback = "stage = 'rollback' AND state IN ('ready', 'sent', 'running')"
    _create_partial_index("ix_batches_aside", "batches", ["order_id", "id"], "aside_since IS NOT NULL")
    _create_partial_index("uq_batches_one_rollback", "batches", ["generation_id"], open_rollback, unique=True)


def _create_costs() -> None:
    op.create_table(
        "costs",
        _key("tenant_id", "tenants"),
        sa.Column("hour", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.String(64), nullable=False) for name in ("collection_id", "job_id")),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("collection", sa.String(64), nullable=False),
        *(_count(name) for name in ("calls", "failed_calls", "tokens")),
        sa.Column("cost_usd", sa.Double, nullable=False),
        *(_count(name) for name in ("unpriced_tokens", "cache_hits", "saved_tokens")),
        sa.Column("saved_usd", sa.Double, nullable=False),
        _count("unpriced_saved_tokens"),
        sa.PrimaryKeyConstraint("tenant_id", "hour", "collection_id", "job_id", "model"),
    )
    op.create_index("ix_costs_hour", "costs", ["hour"])
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(64), primary_key=True),
        _key("tenant_id", "tenants"),
        sa.Column("collection_id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("month", sa.String(7), nullable=False),
        sa.Column("jobs", sa.JSON, nullable=False),
        _count("tokens"),
        sa.Column("cost_usd", sa.Double),
        sa.Column("batch_id", sa.String(64)),
        sa.Column("attempt", sa.Integer),
        sa.Column("order_id", sa.String(64)),
        _time("expires_at", nullable=True),
        _time("made_at"),
    )
    op.create_index("ix_reservations_batch_id", "reservations", ["batch_id"])
    op.create_index("ix_reservations_order_id", "reservations", ["order_id"])
    op.create_index("ix_reservations_expires_at", "reservations", ["expires_at"])
    op.create_table(
        "purses",
        _key("tenant_id", "tenants"),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("spent_usd", sa.Double, nullable=False),
        sa.Column("reserved_usd", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "name"),
    )


def _create_orders() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.String(64), primary_key=True),
        _key("tenant_id", "tenants"),
        sa.Column("generation_id", sa.String(64), nullable=False),
        _state("state", 16, "gathered placing placed over"),
        sa.Column("chunk_count", sa.Integer, nullable=False),
        _count("tokens"),
        sa.Column("file_id", sa.String(128)),
        sa.Column("provider_id", sa.String(128)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(128)),
        _time("lease_until", nullable=True),
        _time("next_look_at"),
        sa.Column("repeated", sa.JSON(none_as_null=True)),
        sa.Column("told", sa.Text),
        _time("created_at"),
        _time("placing_at", nullable=True),
        _time("finished_at", nullable=True),
    )
    _create_partial_index("ix_orders_open", "orders", ["next_look_at", "id"], "state <> 'over'")
    op.create_index("ix_orders_finished_at", "orders", ["finished_at"])


def _create_webhooks() -> None:
    op.create_table(
        "webhook_secrets",
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("former", sa.Text),
        _time("former_until", nullable=True),
        sa.Column("url", sa.Text),
        _time("created_at"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(64), primary_key=True),
        _key("tenant_id", "tenants"),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        _state("state", 16, "waiting sending delivered dead dropped"),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(128)),
        _time("next_attempt_at"),
        sa.Column("status", sa.Integer),
        sa.Column("error", sa.Text),
        _time("created_at"),
        _time("finished_at", nullable=True),
    )
    op.create_index("ix_deliveries_tenant_id_id", "deliveries", ["tenant_id", "id"])
    still_open = "state IN ('waiting', 'sending')"
    _create_partial_index("ix_deliveries_open", "deliveries", ["next_attempt_at", "id"], still_open)
    _create_partial_index("ix_deliveries_due", "deliveries", ["tenant_id", "next_attempt_at", "id"], still_open)
    _create_partial_index("ix_deliveries_sending", "deliveries", ["tenant_id", "next_attempt_at"], "state = 'sending'")
    _create_partial_index("ix_deliveries_ended", "deliveries", ["finished_at", "id"], "finished_at IS NOT NULL")


def _create_schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id")),
        sa.Column("collection_id", sa.String(64), sa.ForeignKey("collections.id")),
        _state("action", 8, "reembed sync expire merge backup"),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("cron", sa.String(255)),
        _time("every_s", nullable=True),
        sa.Column("timezone", sa.String(64), nullable=False),
        _time("jitter_s"),
        _time("due_at"),
        _time("next_run_at"),
        _time("paused_at", nullable=True),
        _time("last_success_at", nullable=True),
        _time("created_at"),
        sa.CheckConstraint("(cron IS NULL) <> (every_s IS NULL)", name="cadence"),
        sa.CheckConstraint("(tenant_id IS NULL) = (collection_id IS NULL)", name="owner"),
    )
    op.create_index("ix_schedules_tenant_id_id", "schedules", ["tenant_id", "id"])
    op.create_index("ix_schedules_collection_id", "schedules", ["collection_id"])
    _create_partial_index("ix_schedules_due", "schedules", ["next_run_at", "id"], "paused_at IS NULL")
    op.create_table(
        "schedule_runs",
        sa.Column("id", sa.String(64), primary_key=True),
        _key("schedule_id", "schedules"),
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id")),
        _state("state", 8, "waiting running ok failed skipped lost"),
        sa.Column("asked", sa.Boolean, nullable=False),
        _time("due_at"),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(128)),
        _time("lease_until", nullable=True),
        _time("next_attempt_at"),
        sa.Column("progress", sa.JSON, nullable=False),
        sa.Column("reason", sa.Text),
        _time("created_at"),
        _time("started_at", nullable=True),
        _time("finished_at", nullable=True),
    )
    op.create_index("ix_schedule_runs_schedule_id_id", "schedule_runs", ["schedule_id", "id"])
    op.create_index("ix_schedule_runs_tenant_id_started_at", "schedule_runs", ["tenant_id", "started_at"])
    still_open = "state IN ('waiting', 'running')"
    _create_partial_index("uq_schedule_runs_one_open", "schedule_runs", ["schedule_id"], still_open, unique=True)
    _create_partial_index("ix_schedule_runs_open", "schedule_runs", ["state", "next_attempt_at"], still_open)
    _create_partial_index("ix_schedule_runs_ended", "schedule_runs", ["finished_at", "id"], "finished_at IS NOT NULL")


def _create_questions() -> None:
    op.create_table(
        "recorded_queries",
        _key("collection_id", "collections"),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        _key("tenant_id", "tenants"),
        sa.Column("text", sa.Text),
        sa.Column("filter", sa.JSON(none_as_null=True)),
        _count("times"),
        _time("first_at"),
        _time("last_at"),
        sa.PrimaryKeyConstraint("collection_id", "digest"),
    )
    op.create_index("ix_recorded_queries_tenant_id", "recorded_queries", ["tenant_id"])
    op.create_index("ix_recorded_queries_last_at", "recorded_queries", ["last_at"])
    op.create_table(
        "judgements",
        _key("collection_id", "collections"),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        _key("tenant_id", "tenants"),
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("document_id", sa.String(64)),
        sa.Column("grade", sa.Integer, nullable=False),
        _time("created_at"),
        sa.PrimaryKeyConstraint("collection_id", "digest"),
        sa.CheckConstraint("(source IS NULL) <> (document_id IS NULL)", name="document"),
    )
    op.create_index("ix_judgements_tenant_id", "judgements", ["tenant_id"])


def _create_partial_index(name: str, table: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)
