"""A long poll is answered as soon as a version is published, and by looking now and then where no notice comes."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from starlette.requests import Request

from penstock.api.http import polling
from penstock.api.http.places import Places
from penstock.api.http.publications import Publications

PATIENCE_S = 10.0
ONLY_NOTICES_S = 2 * PATIENCE_S  # without a notice nobody looks again before the end


def poll(
    publications: Publications,
    look: Callable[[], Awaitable[dict[str, Any]]],
    *,
    wait_s: float = PATIENCE_S,
    first_s: float = ONLY_NOTICES_S,
) -> tuple[dict[str, Any], float]:
    """Return the answer, and the seconds until it came."""
    places = Places(most=10, most_per_tenant=10)
    state = SimpleNamespace(components=SimpleNamespace(publications=publications, places=places))
    scope = {"type": "http", "app": SimpleNamespace(state=state)}

    async def run() -> tuple[dict[str, Any], float]:
        began = asyncio.get_running_loop().time()
        waits = lambda found: bool(found["waits"])  # noqa: E731
        found = await polling.polled(Request(scope), look, tenant="acme", waits=waits, wait_s=wait_s, first_s=first_s)
        return found, asyncio.get_running_loop().time() - began

    return asyncio.run(run())


def test_a_poll_is_answered_when_a_version_is_published():
    publications, looks = Publications(), 0

    async def look() -> dict[str, Any]:
        nonlocal looks
        looks += 1
        if looks == 1:
            threading.Thread(target=publications.tell, args=["acme"]).start()
        return {"waits": looks == 1}

    found, took_s = poll(publications, look)
    assert (found, looks) == ({"waits": False}, 2)
    assert took_s < PATIENCE_S / 2


def test_a_version_that_is_published_during_a_look_is_not_missed():
    publications, looks = Publications(), 0

    async def look() -> dict[str, Any]:
        nonlocal looks
        looks += 1
        publications.tell("acme")
        await asyncio.sleep(0)  # the event is set before the look is over
        await asyncio.sleep(0)
        return {"waits": looks == 1}

    _, took_s = poll(publications, look)
    assert looks == 2
    assert took_s < PATIENCE_S / 2


def test_what_is_published_of_another_tenant_makes_nobody_look():
    publications, looks = Publications(), 0

    async def look() -> dict[str, Any]:
        nonlocal looks
        looks += 1
        publications.tell("other")
        return {"waits": True}

    found, _ = poll(publications, look, wait_s=0.2)
    assert (found, looks) == ({"waits": True}, 2)  # at once, and when the patience ends


def test_what_comes_without_a_notice_is_found_by_looking():
    looks = 0

    async def look() -> dict[str, Any]:
        nonlocal looks
        looks += 1
        return {"waits": looks < 3}

    found, took_s = poll(Publications(), look, first_s=0.01)
    assert (found, looks) == ({"waits": False}, 3)
    assert took_s < PATIENCE_S / 2


def test_versions_that_follow_each_other_quickly_do_not_make_it_look_without_a_pause():
    publications, looks = Publications(), 0

    async def look() -> dict[str, Any]:
        nonlocal looks
        looks += 1
        publications.tell("acme")
        await asyncio.sleep(0)
        return {"waits": True}

    _, took_s = poll(publications, look, wait_s=0.3)
    assert looks <= 2 + took_s / polling.LEAST_REST_S
