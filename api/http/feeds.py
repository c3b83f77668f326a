"""Tells many streams how jobs move: one loop in this process looks at all jobs that somebody follows, in one read.

A notice of any work makes it look; without notices it looks every second. A stream holds no thread and asks nothing.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress

from penstock.settings.logs import log_failure
from penstock.storage.catalog.jobs import JobInfo
from penstock.storage.errors import StorageError
from penstock.storage.ids import JobId

from ..errors import Refused

log = logging.getLogger(__name__)

NOT_FOLLOWED = {"action": "jobs_not_followed"}

EVERY_S = 1.0
GATHER_S = 0.2  # notices that come together are served by one look
SHARE = 4.0  # of the time at most a fifth is spent looking
RETRY_S = 5

Look = Callable[[Collection[JobId]], Awaitable[Mapping[JobId, JobInfo]]]


class Follower:
    """One stream's view of its job: the newest that is known of it. ``info`` None: there is no such job any more."""

    def __init__(self, info: JobInfo) -> None:
        self.info: JobInfo | None = info
        self.closing = False
        self._moved = asyncio.Event()

    def tell(self, info: JobInfo | None) -> None:
        if info != self.info:
            self.info = info
            self._moved.set()

    def end(self) -> None:
        """Say that the server stops."""
        self.closing = True
        self._moved.set()

    async def moved(self, *, within_s: float) -> bool:
        """Return whether there is something new, at the latest after ``within_s``."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._moved.wait(), within_s)
        moved = self._moved.is_set()
        self._moved.clear()
        return moved


class JobFeeds:
    """The followed jobs of one process. All but `wake` and `close` belong to its event loop.

    Args:
        look: reads jobs by id; those that are gone are left out.
        most: streams at once; ``most_per_tenant``: of those for one tenant.
    """

    def __init__(self, look: Look, *, most: int, most_per_tenant: int) -> None:
        self._look = look
        self._most = most
        self._most_per_tenant = most_per_tenant
        self._followers: dict[JobId, set[Follower]] = defaultdict(set)
        self._by_tenant: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def streams(self) -> int:
        """How many there are now."""
        return self._by_tenant.total()

    def check_room(self, tenant: str) -> None:
        """Return if one more stream may begin, before its answer does. Raises Refused (429)."""
        if self.streams >= self._most or self._by_tenant[tenant] >= self._most_per_tenant:
            raise _too_many()

    @contextmanager
    def following(self, info: JobInfo, *, tenant: str) -> Iterator[Follower]:
        """Follow a job during the block."""
        follower = Follower(info)
        self._by_tenant[tenant] += 1
        self._followers[info.id].add(follower)
        self._start()
        try:
            yield follower
        finally:
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]
            self._followers[info.id].discard(follower)
            if not self._followers[info.id]:
                del self._followers[info.id]

    def wake(self, *_: object) -> None:
        """Look soon. From any thread."""
        self._from_any_thread(self._wake.set)

    def close(self) -> None:
        """End all streams: the server stops, and whoever follows may resume elsewhere. From any thread."""
        self._from_any_thread(self._end)

    def _end(self) -> None:
        self._closing = True
        for follower in [one for some in self._followers.values() for one in some]:
            follower.end()

    def _from_any_thread(self, act: Callable[[], None]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody follows any more
                self._loop.call_soon_threadsafe(act)

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._run(), name="job-feeds")

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._followers and not self._closing:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), EVERY_S)
            self._wake.clear()
            began = loop.time()
            await self._turn()
            await asyncio.sleep(max(GATHER_S, SHARE * (loop.time() - began)))

    async def _turn(self) -> None:
        try:
            found = await self._look(list(self._followers))
        except StorageError as error:  # streams beat on; the next look may find the catalog again
            log.warning("Followed jobs cannot be looked at: %s", error, extra=NOT_FOLLOWED)
            return
        except Exception as error:  # noqa: BLE001 it must not end the loop of all streams, whosever fault it is
            log_failure(log, "Followed jobs cannot be looked at", error, extra=NOT_FOLLOWED)
            return
        for job_id, followers in self._followers.items():
            for follower in followers:
                follower.tell(found.get(job_id))


def _too_many() -> Refused:
    return Refused(
        "too many streams of events are open: ask again later, or poll the job with ?wait=30",
        status=429,
        code="too_many_streams",
        headers={"Retry-After": str(RETRY_S)},
    )
