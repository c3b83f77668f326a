"""The leases of the shards this process writes: taken and renewed while there is work, given back when idle."""

import logging
import time
from dataclasses import dataclass

from penstock.storage.publishing.publisher import acquire_lease, release_lease, renew_lease

from .components import Components
from .leases import LeaseKeeper

log = logging.getLogger(__name__)

TTL_S = 10.0  # what a killed writer costs; a paused one is fenced by its epoch, however long it sleeps
IDLE_S = 30.0


@dataclass(eq=False)
class ShardLease:
    """The right to publish for ``shard`` with ``epoch``."""

    shard: int
    epoch: int
    used_at: float  # time.monotonic()


class ShardLeases:
    """Which shards this process may write now."""

    def __init__(self, components: Components) -> None:
        self._components = components
        self._ttl_s = min(TTL_S, components.settings.workers.lease_s)
        self._held: dict[int, ShardLease] = {}
        self._keeper: LeaseKeeper[ShardLease] = LeaseKeeper(self._renew, every_s=self._ttl_s / 3)

    def epoch_of(self, shard: int) -> int | None:
        """Return the epoch to publish with, taking the lease if need be; None while another process has it."""
        held = self._held.get(shard)
        if held is not None:
            held.used_at = time.monotonic()
            return held.epoch
        components = self._components
        now = components.clock()
        epoch = acquire_lease(components.catalog, shard=shard, owner=components.owner, ttl_s=self._ttl_s, now=now)
        if epoch is None:
            return None
        lease = self._held[shard] = ShardLease(shard, epoch, time.monotonic())
        self._keeper.add(lease)
        log.info("This process writes the shard now.", extra={"shard": shard})
        return epoch

    def forget(self, shard: int) -> None:
        """Count the lease as lost: what was prepared under it was refused."""
        lease = self._held.pop(shard, None)
        if lease is not None:
            self._keeper.drop(lease)

    def close(self) -> None:
        """Give all leases back, so that the next writer need not wait for their end."""
        self._keeper.close()
        for lease in list(self._held.values()):
            self._release(lease)

    def _renew(self, lease: ShardLease) -> bool:
        components = self._components
        if time.monotonic() - lease.used_at > IDLE_S:
            self._release(lease)
            return False
        renewed = renew_lease(
            components.catalog,
            shard=lease.shard,
            owner=components.owner,
            epoch=lease.epoch,
            ttl_s=self._ttl_s,
            now=components.clock(),
        )
        if not renewed:
            self._held.pop(lease.shard, None)
        return renewed

    def _release(self, lease: ShardLease) -> None:
        components = self._components
        self._held.pop(lease.shard, None)
        release_lease(components.catalog, shard=lease.shard, owner=components.owner, epoch=lease.epoch)
