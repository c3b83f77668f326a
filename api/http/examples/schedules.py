"""Examples of schedules."""

from typing import Any

from pydantic import BaseModel

from penstock.client import wire

RUN: dict[str, Any] = {
    "id": "run_019b76da9a2f4c1d6e8f0a2b4c",
    "schedule_id": "sched_019b76da12345c1d6e8f0a2b4c",
    "state": "ok",
    "asked": False,
    "due_at": 1767236400.0,
    "attempts": 1,
    "progress": {"added": 3, "updated": 1, "deleted": 0, "unchanged": 812, "job_id": "job_019b76da9a305d2e7f9a1b3c5d"},
    "reason": None,
    "created_at": 1767236400.4,
    "started_at": 1767236400.9,
    "finished_at": 1767236412.3,
}
SCHEDULE: dict[str, Any] = {
    "id": RUN["schedule_id"],
    "tenant": "default",
    "collection": "notes",
    "action": "sync",
    "options": {"folder": "/srv/notes"},
    "cron": "0 3 * * *",
    "every_s": None,
    "timezone": "Europe/Berlin",
    "jitter_s": 0.0,
    "next_run_at": 1767319200.0,
    "paused_at": None,
    "last_success_at": RUN["finished_at"],
    "created_at": 1767225600.0,
    "last_run": RUN,
}

EXAMPLES: dict[type[BaseModel], dict[str, Any]] = {
    wire.NewSchedule: {
        "action": "sync",
        "cron": "0 3 * * *",
        "timezone": "Europe/Berlin",
        "options": {"folder": "/srv/notes"},
    },
    wire.Schedule: SCHEDULE,
    wire.ScheduleList: {"data": [SCHEDULE]},
    wire.ScheduleRun: RUN,
    wire.ScheduleRunList: {"data": [RUN], "has_more": False, "last_id": RUN["id"]},
}
