"""Long work in a thread, and whether anybody still waits for what it finds."""

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from fastapi import Request

LOOK_S = 0.5
T = TypeVar("T")


async def while_waited_for(
    request: Request, work: Callable[[], T], *, left: threading.Event, limiter: anyio.CapacityLimiter
) -> T:
    """Return what ``work`` does in a thread, and tell it by ``left`` when nobody waits for that any more."""

    async def watch() -> None:
        while not await request.is_disconnected():
            await anyio.sleep(LOOK_S)
        left.set()

    outcome: list[T] = []
    failure: list[Exception] = []

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            outcome.append(await anyio.to_thread.run_sync(work, limiter=limiter))
        except Exception as error:  # noqa: BLE001  raised below: a task group would wrap it
            failure.append(error)
        finally:
            left.set()
        group.cancel_scope.cancel()
    if failure:
        raise failure[0]
    return outcome[0]
