"""Runs of schedules: takes the one whose turn it is, keeps the claim, does what it is for, and tells what became of it.

A run that waits for others lets its process go meanwhile. One that is repeated, because a worker died or was told to
stop, does no harm: each action looks anew what is left to do.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from penstock.settings.logs import failed_at, log_failure
from penstock.storage import schedules
from penstock.storage.errors import Conflict, Damaged, StorageError, Unavailable
from penstock.storage.figures import Figure
from penstock.storage.schedules import Run

from .backups import back_up
from .components import Components
from .errors import RunFailed, RunHandedBack, RunSkipped, RunWaits
from .folder_sync import sync_folder
from .leases import LeaseKeeper
from .liveness import Liveness
from .reembed_runs import reembed
from .run_work import RunWork
from .sweeps import expire, merge

log = logging.getLogger(__name__)

LEASES = 4  # of workers.lease_s: hashing a large file, and a slow disk, keep renewals waiting
ACTIONS: Mapping[str, Callable[[RunWork], None]] = {
    "reembed": reembed,
    "sync": sync_folder,
    "expire": expire,
    "merge": merge,
    "backup": back_up,
}


class ScheduleRuns:
    """The runs of one process that does maintenance."""

    def __init__(
        self,
        components: Components,
        *,
        liveness: Liveness,
        actions: Mapping[str, Callable[[RunWork], None]] = ACTIONS,
    ) -> None:
        self._components = components
        self._liveness = liveness
        self._actions = actions
        self._lease_s = LEASES * components.settings.workers.lease_s
        self._keeper: LeaseKeeper[Run] = LeaseKeeper(self._renew, every_s=self._lease_s / 3)

    def close(self) -> None:
        self._keeper.close()

    def work(self) -> None:
        """Do the next run, if there is one. What goes wrong with it ends as its outcome, and not here."""
        components = self._components
        try:
            run = schedules.claim_run(
                components.catalog,
                owner=components.owner,
                lease_s=self._lease_s,
                now=components.clock(),
                most=components.settings.schedules.runs,
            )
        except Unavailable as error:
            log.warning("No run of a schedule was taken: %s", error)
            return
        if run is not None:
            with self._keeper.hold(run):
                self._work(RunWork(components, run, stopping=lambda: self._liveness.stopping))

    def _work(self, work: RunWork) -> None:
        try:
            self._act(work)
        except Conflict as error:
            log.info("A run of a schedule was lost: %s", error, extra=work.ids)
        except Unavailable as error:
            log.warning("A run of a schedule stays claimed until its lease ends: %s", error, extra=work.ids)

    def _act(self, work: RunWork) -> None:
        try:
            self._actions[work.run.action](work)
        except Unavailable:
            raise
        except RunHandedBack:
            self._end_for_now(work, after_s=0.0)
        except RunWaits as wait:
            log.debug("A run of a schedule waits: %s", wait, extra=work.ids)
            self._end_for_now(work, after_s=wait.after_s)
        except (RunFailed, RunSkipped) as error:
            self._end(work, state="failed" if isinstance(error, RunFailed) else "skipped", reason=str(error))
        except (StorageError, OSError) as error:
            if isinstance(error, Conflict) and not schedules.is_held(self._components.catalog, work.run):
                raise
            told = str(error) if isinstance(error, StorageError) else _worded(error)
            level = log.error if isinstance(error, Damaged) else log.warning
            level("A run of a schedule failed: %s", told, extra=work.ids)
            self._end(work, state="failed", reason=told)
        except Exception as error:  # noqa: BLE001 whatever it is, the history has to know
            log_failure(log, "A run of a schedule failed", error, extra=work.ids)
            self._end(work, state="failed", reason=f"a defect of this program: {failed_at(error)}")
        else:
            self._end(work, state="ok")

    def _end(self, work: RunWork, *, state: str, reason: str | None = None) -> None:
        components = self._components
        told: dict[str, Any] = {"progress": work.progress, "reason": reason}
        schedules.end_run(components.catalog, work.run, state=state, now=components.clock(), **told)
        components.figures.add([Figure("penstock_schedule_runs", (work.run.action, state))])
        log.info("A run of a schedule (%s) ended: %s.", work.run.action, state, extra=work.ids)

    def _end_for_now(self, work: RunWork, *, after_s: float) -> None:
        at = self._components.clock() + after_s
        schedules.postpone_run(self._components.catalog, work.run, at=at, progress=work.progress)

    def _renew(self, run: Run) -> bool:
        components = self._components
        return schedules.renew_run(components.catalog, run, lease_s=self._lease_s, now=components.clock())


def _worded(error: OSError) -> str:
    place = f"{error.filename}: " if isinstance(error.filename, str) else ""
    return f"{place}{(error.strerror or failed_at(error)).lower()}"
