"""How schedules and their runs are said: what one does, when it does next, and what became of a run."""

import time
from typing import TYPE_CHECKING, Any

from .output import duration, plain, state, when

if TYPE_CHECKING:
    from penstock.client.wire import Schedule, ScheduleRun


def does(one: "Schedule") -> str:
    place = one.options.get("folder") or one.options.get("destination") or one.options.get("model")
    return f"{one.action} {plain(str(place))}" if place else one.action


def cadence(one: "Schedule") -> str:
    told = f"every {_exactly(one.every_s or 0.0)}" if one.cron is None else f"{one.cron} {one.timezone}"
    return f"{told}, up to {_exactly(one.jitter_s)} later" if one.jitter_s else told


def next_time(one: "Schedule") -> str:
    """Return the next time as this machine's clock shows it, and how far away it is."""
    if one.next_run_at is None:
        return "[yellow]paused[/]"
    at = when(one.next_run_at)
    left_s = one.next_run_at - time.time()
    return f"{at} (in {_roughly(left_s)})" if left_s > 0 else f"{at} (now)"


def ago(run: "ScheduleRun") -> str:
    return f"{_roughly(time.time() - (run.finished_at or run.started_at or run.created_at))} ago"


def _exactly(seconds: float) -> str:
    """Return ``6 h``, ``7 d``: in the largest unit of which it is a whole number; else as any duration."""
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size_s and seconds % size_s == 0:
            return f"{seconds / size_s:.0f} {unit}"
    return duration(seconds)


def _roughly(seconds: float) -> str:
    """Return ``3 h``, ``2 d``: the largest unit, rounded."""
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 0.95 * size_s:
            return f"{max(1, round(seconds / size_s))} {unit}"
    return f"{max(0, round(seconds))} s"


def outcome(run: "ScheduleRun") -> str:
    style = {"ok": "green", "failed": "red", "lost": "red", "skipped": "yellow"}.get(run.state)
    return f"[{style}]{run.state}[/]" if style else state(run.state)


def details(run: "ScheduleRun") -> list[str]:
    """Return the reason of an outcome, and what was done."""
    done = ", ".join(f"{name.replace('_', ' ')} {_told(value)}" for name, value in run.progress.items() if value)
    return [plain(text) for text in (run.reason, done) if text]


def _told(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
