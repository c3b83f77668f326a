"""The writer's lease: at most one process may publish for a shard, and each that may has an epoch of its own.

A lease does not stop a writer that slept past its end. Its epoch does: publishing compares it in the transaction.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from sqlalchemy import insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ..catalog.engine import Catalog
from ..catalog.tables import shards

log = logging.getLogger(__name__)


def acquire_lease(catalog: Catalog, *, shard: int, owner: str, ttl_s: float, now: float) -> int | None:
    """Take the lease of ``shard`` if it is free, expired or already the owner's; every success raises the epoch.

    Returns:
        The epoch to publish with, or None while another owner holds the lease.
    """
    free = or_(shards.c.owner.is_(None), shards.c.owner == owner, shards.c.expires_at <= now)
    taken = {"owner": owner, "expires_at": now + ttl_s}
    _ensure_row(catalog, shard=shard)
    with catalog.write("lease") as connection:
        epoch = connection.scalar(
            update(shards)
            .where(shards.c.shard == shard, free)
            .values(epoch=shards.c.epoch + 1, **taken)
            .returning(shards.c.epoch)
        )
    return None if epoch is None else int(epoch)


def renew_lease(catalog: Catalog, *, shard: int, owner: str, epoch: int, ttl_s: float, now: float) -> bool:
    """Prolong the lease to ``now + ttl_s``. False when another writer has taken it: stop publishing."""
    with catalog.write("lease") as connection:
        renewed = connection.execute(
            update(shards)
            .where(shards.c.shard == shard, shards.c.owner == owner, shards.c.epoch == epoch)
            .values(expires_at=now + ttl_s)
        )
    return renewed.rowcount == 1


@contextmanager
def keeping_lease(
    catalog: Catalog, *, shard: int, owner: str, epoch: int, ttl_s: float, clock: Callable[[], float]
) -> Iterator[None]:
    """Renew a lease that is held while the block runs, however long that takes; give it back at the end.

    Raises nothing of its own: publishing is what finds out whether the lease was lost, and one that cannot be given
    back ends by itself.
    """
    over = Event()

    def keep() -> None:
        while not over.wait(ttl_s / 3):
            try:
                renew_lease(catalog, shard=shard, owner=owner, epoch=epoch, ttl_s=ttl_s, now=clock())
            except Exception as error:  # noqa: BLE001  whatever it is, the next turn may still be in time
                log.warning("The lease of shard %d was not renewed: %s", shard, error)

    keeper = Thread(target=keep, name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        try:
            release_lease(catalog, shard=shard, owner=owner, epoch=epoch)
        except Exception as error:  # noqa: BLE001  how the block ended is what the caller has to know
            log.warning("The lease of shard %d was not given back, and ends within %g s: %s", shard, ttl_s, error)


def release_lease(catalog: Catalog, *, shard: int, owner: str, epoch: int) -> bool:
    """Give the lease back so that the next writer need not wait. False when it was no longer held."""
    with catalog.write("lease") as connection:
        released = connection.execute(
            update(shards)
            .where(shards.c.shard == shard, shards.c.owner == owner, shards.c.epoch == epoch)
            .values(owner=None, expires_at=0.0)
        )
    return released.rowcount == 1


def _ensure_row(catalog: Catalog, *, shard: int) -> None:
    with catalog.read() as connection:
        if connection.scalar(select(shards.c.shard).where(shards.c.shard == shard)) is not None:
            return
    try:
        with catalog.write("lease") as connection:
            connection.execute(insert(shards).values(shard=shard))
    except IntegrityError:  # another first writer was quicker
        return
