"""Long polls: an answer as soon as there is something to tell, or when the caller's patience ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request

from .front import UNTIMED

FIRST_LOOK_S = 0.1
LAST_LOOK_S = 1.0


async def polled(
    request: Request,
    look: Callable[[], Awaitable[dict[str, Any]]],
    *,
    waits: Callable[[dict[str, Any]], bool],
    wait_s: float,
) -> dict[str, Any]:
    """Return the first of the looks that ``waits`` no more, at the latest the one after ``wait_s``."""
    loop = asyncio.get_running_loop()
    deadline, pause_s = loop.time() + wait_s, FIRST_LOOK_S
    if wait_s:
        request.scope[UNTIMED] = True
    while True:
        found = await look()
        left_s = deadline - loop.time()
        if not waits(found) or left_s <= 0:
            return found
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, LAST_LOOK_S)
