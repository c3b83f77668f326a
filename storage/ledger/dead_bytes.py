"""Lets go of the bytes of documents that have been dead for long. That they are dead, and why, is still told.

Which packs are garbage then, the collector finds out.
"""

import sqlalchemy as sa

from ..catalog.engine import Catalog
from ..catalog.tables import HAS_DEAD_BYTES, versions

KEEP_S = 30 * 86_400.0
_AT_ONCE = 500  # rows in one transaction, in which nobody else writes on SQLite


def release_dead_bytes(catalog: Catalog, *, now: float, keep_s: float = KEEP_S) -> int:
    """Forget where the bytes of documents lie that died longer than ``keep_s`` ago; returns how many these were.

    They can be retried no more. One that is being retried just now keeps them.
    """
    long_dead = (HAS_DEAD_BYTES, versions.c.finished_at < now - keep_s)
    oldest = sa.select(versions.c.id).where(*long_dead).order_by(versions.c.finished_at).limit(_AT_ONCE)
    count = 0
    while True:
        with catalog.read() as connection:  # the common case, without the write lock
            ids = connection.scalars(oldest).all()
        if not ids:
            return count
        with catalog.write("release_dead_bytes") as connection:
            released = sa.update(versions).where(versions.c.id.in_(ids), *long_dead)
            count += connection.execute(released.values(pack="", pack_offset=0)).rowcount
