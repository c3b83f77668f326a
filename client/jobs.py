"""What the client can do with jobs: a part of `Penstock`."""

import time
from collections.abc import Callable, Iterator

from .errors import Busy
from .events import NoEvents, followed
from .session import Session
from .transport import LONGEST_POLL_S, worded
from .wire import Job, JobChange, JobList

POLL_S = 1.0
LONGEST_CANCEL_S = 600.0  # the answer to it comes when the last of perhaps a million documents is cancelled


class Jobs(Session):
    """The methods of `Penstock` about jobs."""

    def jobs(self, *, after: str | None = None, limit: int = 20) -> JobList:
        return self._transport.get(self._path("jobs"), JobList, params={"after": after, "limit": limit})

    def job(self, job_id: str, *, wait_s: float = 0) -> Job:
        """Return a job as soon as it is not running any more, at the latest after ``wait_s`` (at most 30)."""
        wait_s = min(wait_s, LONGEST_POLL_S)
        return self._transport.get(self._path("jobs", job_id), Job, wait_s=wait_s)

    def events(self, job_id: str, *, wait_s: float | None = None) -> Iterator[Job]:
        """Yield the job as it is now, again whenever it moved, and last when it is over or ``wait_s`` have passed.

        Told by the server's events; where those cannot be had (too many streams, a proxy that holds them back, an older
        server) the job is asked for again and again.
        """
        deadline = None if wait_s is None else time.monotonic() + wait_s
        try:
            yield from followed(self._transport, self._path("jobs", job_id, "events"), deadline=deadline)
        except (Busy, NoEvents):
            yield from self._polled(job_id, deadline=deadline)

    def _polled(self, job_id: str, *, deadline: float | None) -> Iterator[Job]:
        last: Job | None = None
        while True:
            left_s = POLL_S if deadline is None else min(POLL_S, deadline - time.monotonic())
            job = self.job(job_id, wait_s=max(0.0, left_s) if last else 0.0)
            if job != last:
                yield job
            if job.state != "running" or left_s <= 0:
                return
            last = job

    def set_budget(self, job_id: str, budget_usd: float | None) -> Job:
        """Let a job cost so much in all, what it has cost included; None: whatever it costs.

        A job that waits for money goes on at once when there is some.
        """
        with worded(JobChange):
            asked = JobChange(budget_usd=budget_usd)
        return self._transport.change("PATCH", self._path("jobs", job_id), Job, body=asked.model_dump())

    def cancel(self, job_id: str) -> Job:
        """Cancel what is not indexed yet."""
        return self._transport.post(self._path("jobs", job_id, "cancel"), Job, wait_s=LONGEST_CANCEL_S)

    def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
        every_s: float = 0.5,
    ) -> Job:
        """Wait until a job is done or cancelled, telling ``on_progress`` about every ``every_s``.

        Raises:
            Busy: it is still running after ``timeout_s``.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = every_s if deadline is None else min(every_s, deadline - time.monotonic())
            job = self.job(job_id, wait_s=max(0.0, left_s))
            if on_progress is not None:
                on_progress(job)
            if job.state != "running":
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise Busy(f"job {job_id} is still running after {timeout_s:g} s", code="still_running")
