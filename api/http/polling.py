"""Long polls: an answer as soon as there is something to tell, or when the caller's patience ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request

from .components import components_of
from .front import UNTIMED

T = TypeVar("T")

FIRST_LOOK_S = 0.1
LAST_LOOK_S = 1.0


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

    Between two looks it pauses for ``first_s``, then longer and longer up to ``last_s``; longer still in a crowd.

    Raises:
        Refused: 429 when it would have to wait, and too many do already.
    """
    found = await look()
    if not wait_s or not waits(found):
        return found
    loop, places = asyncio.get_running_loop(), components_of(request).places
    deadline, pause_s = loop.time() + wait_s, first_s
    with places.taken(tenant):
        request.scope[UNTIMED] = True
        while waits(found) and (left_s := deadline - loop.time()) > 0:
            await asyncio.sleep(min(max(pause_s, places.least_pause_s), left_s))
            pause_s = min(pause_s * 1.5, last_s)
            found = await look()
    return found
