"""Tags: names that keep a version for as long as they exist. It runs in its caller's transaction."""

import re

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import AlreadyExists, InvalidName, NotFound
from ..ids import GenerationId, checked_name
from .manifests import hold_manifest
from .tables import generations, tags

_BEGINNING = re.compile(r"[a-z]")
RESERVED = "current"  # what the newest version is called, whichever it is


def checked_tag(name: str) -> str:
    """Return ``name`` if it may name a version: never to be mistaken for a number or a time. Raises InvalidName."""
    if name == RESERVED:
        raise InvalidName(f"tag name {name!r} is not allowed: it means the newest version")
    if not _BEGINNING.match(name):
        raise InvalidName(f"tag name {name!r} is not allowed: it must begin with a letter a to z")
    return checked_name("tag", name)


def put_tag(
    connection: Connection, generation_id: GenerationId, *, name: str, version: int, move: bool = False, now: float
) -> None:
    """Give a version a name, which it may have already; with ``move``, take it from another version.

    Raises:
        InvalidName: of the tag.
        NotKept: the version. NotFound: there is no such generation.
        AlreadyExists: another version has the name.
    """
    # One at a time for a generation, so that two who tag see each other.
    generation = sa.select(generations.c.tenant_id).where(generations.c.id == generation_id)
    tenant = connection.scalar(generation.with_for_update(key_share=True))
    if tenant is None:
        raise NotFound(f"there is no generation {generation_id!r}")
    hold_manifest(connection, generation_id, version)
    mine = (tags.c.generation_id == generation_id, tags.c.name == checked_tag(name))
    former = connection.scalar(sa.select(tags.c.version).where(*mine))
    if former == version:
        return
    if former is not None and not move:
        raise AlreadyExists(f"tag {name!r} names version {former} already: remove it first, or move it")
    connection.execute(sa.delete(tags).where(*mine))
    row = {"generation_id": generation_id, "name": name, "tenant_id": tenant, "version": version, "created_at": now}
    connection.execute(sa.insert(tags).values(row))


def remove_tag(connection: Connection, generation_id: GenerationId, *, name: str) -> None:
    """Forget a name; whether its version stays is then up to retention. Raises NotFound."""
    mine = (tags.c.generation_id == generation_id, tags.c.name == name)
    if connection.execute(sa.delete(tags).where(*mine)).rowcount == 0:
        raise NotFound(f"there is no tag {name!r}")
