"""Wakes the requests of this process that wait for something of a tenant to be published. It holds no thread."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Publications:
    """Who waits for which tenant. All but `tell` belongs to the event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def awaited(self, tenant: str) -> Iterator[asyncio.Event]:
        """Give an event that is set, during the block, whenever a version of this tenant is published."""
        self._loop = asyncio.get_running_loop()
        event = asyncio.Event()
        self._waiting[tenant].add(event)
        try:
            yield event
        finally:
            self._waiting[tenant].discard(event)
            if not self._waiting[tenant]:
                del self._waiting[tenant]

    def tell(self, tenant: str) -> None:
        """Say that a version was published. From any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._wake, tenant)

    def _wake(self, tenant: str) -> None:
        for event in self._waiting.get(tenant, ()):
            event.set()
