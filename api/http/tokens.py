"""`min_token`: what it stands for, and the wait until this process serves it."""

import asyncio

from starlette.requests import Request

from penstock.storage.catalog.generations import is_generation_of
from penstock.storage.errors import NotYet
from penstock.storage.ids import ManifestVersion
from penstock.storage.tokens import read_token

from ..errors import Refused
from .components import Components, components_of
from .polling import polled

WAIT_S = 10.0  # for the snapshot that `min_token` asks for
FIRST_LOOK_S = 0.02
LAST_LOOK_S = 0.25


async def wait_for_token(request: Request, tenant: str, name: str, text: str) -> None:
    """Return when the snapshot covers the token, at the latest after `WAIT_S`. It holds no thread meanwhile.

    Raises:
        Refused: it is no token, or of another collection; or too many requests wait already.
        NotYet: the snapshot does not cover it in time.
    """
    components = components_of(request)

    async def look() -> NotYet | None:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(components.patient, _missing, components, tenant, name, text)

    pauses = {"first_s": FIRST_LOOK_S, "last_s": LAST_LOOK_S}
    not_yet = await polled(request, look, tenant=tenant, waits=lambda found: found is not None, wait_s=WAIT_S, **pauses)
    if not_yet is not None:
        raise not_yet


def wanted_version(components: Components, tenant: str, name: str, text: str) -> ManifestVersion:
    """Return the version that a token stands for. Raises Refused: it is no token, or of another collection."""
    try:
        generation_id, version = read_token(text)
    except ValueError as error:
        raise Refused(
            "min_token is not a token: take it from a job, a collection or a search", param="min_token"
        ) from error
    if components.lookups.collection(tenant, name).generation.id != generation_id:
        components.lookups.forget(tenant, name)  # another generation may have taken over a moment ago
        found = components.lookups.collection(tenant, name)
        # Versions are numbered across the generations of a collection: a later one covers what an earlier one did.
        if not is_generation_of(components.catalog, generation_id, found.id):
            raise Refused(
                "min_token belongs to another collection",
                status=409,
                code="other_generation",
                param="min_token",
            )
    return version


def _missing(components: Components, tenant: str, name: str, text: str) -> NotYet | None:
    """Return why the snapshot does not cover the token now; None when it does. Blocks where it opens a version."""
    version = wanted_version(components, tenant, name, text)
    generation = components.lookups.collection(tenant, name).generation
    try:
        with components.snapshots.get(generation.tenant_id, generation.id, min_version=version, timeout_s=0.0):
            return None
    except NotYet as error:
        return error
