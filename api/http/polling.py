"""Long polls: an answer as soon as there is something to tell, or when the caller's patience ends.

Most of what is waited for comes with a new version of a collection, so a notice of one makes it look at once. What
comes otherwise, or whose notice is lost, is found by looking now and then.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from starlette.requests import Request

from .components import components_of
from .front import UNTIMED

T = TypeVar("T")

FIRST_LOOK_S = 0.1
LAST_LOOK_S = 1.0
LEAST_REST_S = 0.02
SHARE = 4.0  # looks cost at most a fifth of the time, however often versions are published


async def polled(
    request: Request,
    look: Callable[[], Awaitable[T]],
    *,
    tenant: str,
    waits: Callable[[T], bool],
    wait_s: float,
    first_s: float = FIRST_LOOK_S,
    last_s: float = LAST_LOOK_S,
) -> T:
    """Return the first of the looks that ``waits`` no more, at the latest the one after ``wait_s``.

    Between two looks, unless something of the tenant is published, it pauses for ``first_s``, then longer and longer
    up to ``last_s``; longer still in a crowd.

    Raises:
        Refused: 429 when it would have to wait, and too many do already.
    """
    components = components_of(request)
    with components.publications.awaited(tenant) as published:  # before the first look, or a notice could be missed
        found = await look()
        if not wait_s or not waits(found):
            return found
        with components.places.taken(tenant):
            request.scope[UNTIMED] = True
            pauses = _Pauses(wait_s=wait_s, first_s=first_s, last_s=last_s)
            while waits(found) and pauses.left_s > 0:
                await pauses.pause(published, least_s=components.places.least_pause_s)
                found = await pauses.measured(look)
    return found


class _Pauses:
    """The time between the looks of one request."""

    def __init__(self, *, wait_s: float, first_s: float, last_s: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._deadline = self._clock() + wait_s
        self._next_s, self._last_s = first_s, last_s
        self._look_s = 0.0  # what the last one took

    @property
    def left_s(self) -> float:
        return self._deadline - self._clock()

    async def pause(self, published: asyncio.Event, *, least_s: float) -> None:
        """Return when it is time to look again."""
        longest_s = min(max(self._next_s, least_s), self.left_s)
        rest_s = min(max(LEAST_REST_S, SHARE * self._look_s, least_s), self.left_s)
        await asyncio.sleep(rest_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s - rest_s):
                await published.wait()
        published.clear()  # before the look: what is published during it is seen by the next
        self._next_s = min(1.5 * self._next_s, self._last_s)

    async def measured(self, look: Callable[[], Awaitable[T]]) -> T:
        began = self._clock()
        found = await look()
        self._look_s = self._clock() - began
        return found
