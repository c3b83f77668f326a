"""What the client can do with schedules: a part of `Penstock`."""

from collections.abc import Mapping
from typing import Any

from .session import Session
from .transport import worded
from .wire import (
    NewSchedule,
    Schedule,
    ScheduleAction,
    ScheduleList,
    ScheduleOptions,
    ScheduleRun,
    ScheduleRunList,
)


class Schedules(Session):
    """The methods of `Penstock` about schedules.

    ``everything``: the installation's own schedule is meant, which is about all tenants; else one of this tenant.
    """

    def schedules(self, collection: str | None = None, *, everything: bool = False) -> list[Schedule]:
        """Return the schedules of the tenant, or of one collection, or the installation's own."""
        params = {} if everything else {"collection": collection}
        return self._transport.get(self._schedules(everything), ScheduleList, params=params).data

    def schedule(self, schedule_id: str, *, everything: bool = False) -> Schedule:
        return self._transport.get(self._schedules(everything, schedule_id), Schedule)

    def add_schedule(
        self,
        collection: str | None,
        action: ScheduleAction,
        *,
        cron: str | None = None,
        every_s: float | None = None,
        timezone: str = "UTC",
        jitter_s: float = 0.0,
        options: ScheduleOptions | Mapping[str, Any] | None = None,
    ) -> Schedule:
        """Make a schedule of a collection; without one the installation's own. Give ``cron`` or ``every_s``."""
        with worded(NewSchedule):
            told = options.model_dump() if isinstance(options, ScheduleOptions) else options or {}
            cadence = {"cron": cron, "every_s": every_s, "timezone": timezone, "jitter_s": jitter_s}
            new = NewSchedule.model_validate({"action": action, "options": told, **cadence})
        path = self._schedules(True) if collection is None else self._path("collections", collection, "schedules")
        return self._transport.post(path, Schedule, body=new.model_dump(exclude_none=True))

    def pause_schedule(self, schedule_id: str, *, everything: bool = False) -> Schedule:
        """Begin no more runs of it; one that is going goes on."""
        return self._transport.post(self._schedules(everything, schedule_id, "pause"), Schedule)

    def resume_schedule(self, schedule_id: str, *, everything: bool = False) -> Schedule:
        """Go on at its next time: what was due during the pause is not made up for."""
        return self._transport.post(self._schedules(everything, schedule_id, "resume"), Schedule)

    def run_schedule(self, schedule_id: str, *, everything: bool = False) -> ScheduleRun:
        """Run it now, beside its times. ``Conflict`` while a run of it is going."""
        return self._transport.post(self._schedules(everything, schedule_id, "run"), ScheduleRun)

    def delete_schedule(self, schedule_id: str, *, everything: bool = False) -> None:
        """Forget it and its history. A run that is going ends without an outcome."""
        self._transport.delete(self._schedules(everything, schedule_id))

    def schedule_runs(
        self, schedule_id: str, *, everything: bool = False, after: str | None = None, limit: int = 100
    ) -> ScheduleRunList:
        """Return one page of its history, newest first."""
        params = {"after": after, "limit": limit}
        return self._transport.get(self._schedules(everything, schedule_id, "runs"), ScheduleRunList, params=params)

    def _schedules(self, everything: bool, *parts: str) -> str:
        below = self._path("schedules", *parts)
        return below.replace(self._of(self.tenant), "/v1", 1) if everything else below
