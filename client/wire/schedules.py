"""Schedules: what runs again and again, and what became of each run."""

from typing import Any, Literal

from pydantic import Field

from .collections import Chunking, Quantization
from .messages import Answer, Budget, Request

ScheduleAction = Literal["reembed", "sync", "expire", "merge", "backup"]
RunState = Literal["waiting", "running", "ok", "failed", "skipped", "lost"]


class ScheduleOptions(Request):
    """What an action has to be told. Folders are those of the machines that run maintenance."""

    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="reembed: the model; default: the one that new collections have then (`embedding.model`)",
    )
    dimensions: int | None = Field(default=None, ge=256, le=4096, description="reembed: of Matryoshka models")
    chunking: Chunking | None = Field(
        default=None, description="reembed: how documents are cut; they are cut anew then"
    )
    quantization: Quantization | None = Field(default=None, description="reembed: default: as the collection has it")
    economy: bool = Field(default=False, description="reembed: for half the price, within a day")
    keep_s: float | None = Field(
        default=None,
        ge=0,
        le=10_000_000_000,
        description="reembed: how long the former generation is kept after the switch; a run before its end is skipped",
    )
    afresh: bool = Field(default=False, description="reembed: also where nothing would be different")
    force: bool = Field(default=False, description="reembed: switch whatever the check says")
    no_switch: bool = Field(default=False, description="reembed: build and check, and leave the switch to somebody")
    budget_usd: Budget | None = Field(
        default=None, description="reembed: US dollars that each may cost in all; it waits before it costs more"
    )
    folder: str | None = Field(
        default=None,
        max_length=1_024,
        description="sync: the folder that the collection, or what is below its prefix, is to equal; it must lie below "
        "one that `schedules.sync_roots` allows",
    )
    prefix: str | None = Field(
        default=None, max_length=1_024, description="sync: what sources begin with; default: the folder's own name"
    )
    delete_much: bool = Field(
        default=False,
        description="sync: delete whatever is gone from the folder, however much; else a run that would delete more "
        "than 10 documents and more than a fifth, or anything where the folder is empty, fails and changes nothing",
    )
    destination: str | None = Field(
        default=None,
        max_length=1_024,
        description="backup: the folder to write to; it must lie below one that `schedules.backup_roots` allows",
    )
    keep: int | None = Field(
        default=None, ge=1, le=10_000, description="backup: how many backups stay there; default: all"
    )


class NewSchedule(Request):
    """``cron`` or ``every_s``, one of the two."""

    action: ScheduleAction
    cron: str | None = Field(
        default=None,
        max_length=255,
        description="minute hour day-of-month month day-of-week, on the clocks of `timezone`: `0 3 * * *`",
    )
    every_s: float | None = Field(default=None, description="seconds from one time to the next, at least 60")
    timezone: str = Field(default="UTC", max_length=64, description="by its name in the IANA database: `Europe/Berlin`")
    jitter_s: float = Field(default=0.0, description="each time comes up to so many seconds later, by chance")
    options: ScheduleOptions = ScheduleOptions()


class ScheduleRun(Answer):
    """One run. ``progress`` is what it did so far, or in all."""

    id: str
    schedule_id: str
    state: RunState = Field(
        description="skipped: there was nothing it could do, for example because the run before was still going; "
        "lost: its worker died each time; `reason` says more"
    )
    asked: bool = Field(description="somebody asked for it beside its times")
    due_at: float
    attempts: int
    progress: dict[str, Any]
    reason: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None


class Schedule(Answer):
    """A schedule of a collection; without tenant and collection the installation's own, of everything."""

    id: str
    tenant: str | None
    collection: str | None
    action: ScheduleAction
    options: dict[str, Any]
    cron: str | None
    every_s: float | None
    timezone: str
    jitter_s: float
    next_run_at: float | None = Field(description="null while it is paused")
    paused_at: float | None
    last_success_at: float | None
    created_at: float
    last_run: ScheduleRun | None = Field(description="the one that is going, else the newest")


class ScheduleList(Answer):
    data: list[Schedule]


class ScheduleRunList(Answer):
    """Newest first. ``last_id`` as ``after`` gives the next page."""

    data: list[ScheduleRun]
    has_more: bool
    last_id: str | None
