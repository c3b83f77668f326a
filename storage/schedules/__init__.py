"""Schedules: what runs again and again, when, and what became of each run.

``times.py`` says when, ``definitions.py`` keeps what people asked for, ``due.py`` opens runs when it is time,
``claims.py`` hands them out to one process at a time, ``history.py`` tells how they ended. Nothing here does the work.
"""

from .claims import Run, claim_run, end_run, hand_back_run, is_held, postpone_run, record_progress, renew_run
from .definitions import (
    NewSchedule,
    Owner,
    ScheduleInfo,
    add_schedule,
    delete_schedule,
    get_schedule,
    list_schedules,
    pause_schedule,
    resume_schedule,
)
from .due import Opened, count_due, open_due_runs, run_now, take_back_runs
from .history import RunInfo, forget_runs, list_runs, oldest_successes
from .times import Cadence

__all__ = [
    "Cadence",
    "NewSchedule",
    "Opened",
    "Owner",
    "Run",
    "RunInfo",
    "ScheduleInfo",
    "add_schedule",
    "claim_run",
    "count_due",
    "delete_schedule",
    "end_run",
    "forget_runs",
    "get_schedule",
    "hand_back_run",
    "is_held",
    "list_runs",
    "list_schedules",
    "oldest_successes",
    "open_due_runs",
    "pause_schedule",
    "postpone_run",
    "record_progress",
    "renew_run",
    "resume_schedule",
    "run_now",
    "take_back_runs",
]
