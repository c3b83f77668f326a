"""Tables of schedules: what runs when, and what became of each run."""

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
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

SCHEDULE_ACTIONS = ("reembed", "sync", "expire", "merge", "backup")
RUN_STATES = ("waiting", "running", "ok", "failed", "skipped", "lost")
_OPEN_RUN = "state IN ('waiting', 'running')"

schedules = Table(
    "schedules",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id")),  # NULL: the installation's own, of all tenants
    Column("collection_id", ForeignKey("collections.id")),
    Column("action", String(8), one_of("action", SCHEDULE_ACTIONS), nullable=False),
    Column("options", JSON, nullable=False),  # of the action: the folder, the model, the destination
    Column("cron", String(255)),
    Column("every_s", Double),
    Column("timezone", String(64), nullable=False),
    Column("jitter_s", Double, nullable=False),
    Column("due_at", Double, nullable=False),  # its next time, without the jitter
    Column("next_run_at", Double, nullable=False),  # with it
    Column("paused_at", Double),
    Column("last_success_at", Double),
    Column("created_at", Double, nullable=False),
    CheckConstraint("(cron IS NULL) <> (every_s IS NULL)", name="cadence"),
    CheckConstraint("(tenant_id IS NULL) = (collection_id IS NULL)", name="owner"),
    Index(None, "tenant_id", "id"),
    Index(None, "collection_id"),
    partial("ix_schedules_due", "next_run_at", "id", where="paused_at IS NULL"),
)

schedule_runs = Table(
    "schedule_runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("schedule_id", ForeignKey("schedules.id"), nullable=False),
    Column("tenant_id", ForeignKey("tenants.id")),  # that of the schedule
    Column("state", String(8), one_of("state", RUN_STATES), nullable=False),
    Column("asked", Boolean, nullable=False),  # by a person, beside its times
    Column("due_at", Double, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("owner", String(128)),
    Column("lease_until", Double),
    Column("next_attempt_at", Double, nullable=False),
    Column("progress", JSON, nullable=False),  # what it did so far: counts and ids
    Column("reason", Text),  # of an outcome that is not ok
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Index(None, "schedule_id", "id"),
    Index(None, "tenant_id", "started_at"),
    partial("uq_schedule_runs_one_open", "schedule_id", where=_OPEN_RUN, unique=True),  # overlaps are skipped
    partial("ix_schedule_runs_open", "state", "next_attempt_at", where=_OPEN_RUN),
    partial("ix_schedule_runs_ended", "finished_at", "id", where="finished_at IS NOT NULL"),
)
IS_OPEN_RUN = schedule_runs.c.state.in_([literal_column("'waiting'"), literal_column("'running'")])
