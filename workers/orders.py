"""Orders at providers that make vectors for half the price within a day: gathered, placed once, watched, collected.

Steps of seconds, at each tick; no thread waits for a provider. Whatever dies between two lines, the next step finds in
the ledger what was to be done, and at the provider, by our id in its metadata, what was done.
"""

import logging
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from penstock.pipeline.embedding.orders import MOST_BYTES, Provider, Standing, TakesOrders
from penstock.pipeline.errors import EmbeddingError, InputRejected, ProviderMisconfigured, ProviderUnavailable
from penstock.storage import ledger
from penstock.storage.cache import text_digest
from penstock.storage.errors import Conflict, Damaged, NotFound, StorageError
from penstock.storage.failpoints import hit
from penstock.storage.ids import BatchId
from penstock.storage.ledger.members import Member
from penstock.storage.ledger.orders import NOTHING, Delivered, Order

from . import staging
from .components import Components
from .liveness import Liveness
from .parcels import requests_of
from .unpacking import Unpacking

log = logging.getLogger(__name__)

WAIT_S = 120.0  # of what was put aside for others that come after it
LOOK_S = 60.0
SETTLE_S = 60.0  # until what a provider was told last is in its lists
FULL_S = 600.0  # until a provider whose orders are too many is asked again
LEASE_S = 600.0
LONGEST_S = 26 * 3_600.0  # at the provider, which promises a day
CLOCKS_S = 3_600.0  # by how much ours and the provider's may differ
KEPT_S = 7 * 86_400.0


class OrderDesk:
    """Works on the orders of an installation. Several processes may at once: each order is one's."""

    def __init__(self, components: Components, *, liveness: Liveness, settle_s: float = SETTLE_S) -> None:
        self._components = components
        self._liveness = liveness
        self._settle_s = settle_s

    def tick(self, *, wait_s: float = WAIT_S) -> None:
        """Gather what was put aside for ``wait_s``, and take a step with each order that is due."""
        catalog, clock = self._components.catalog, self._components.clock
        if made := ledger.gather(catalog, now=clock(), wait_s=wait_s):
            log.info("Gathered %d orders.", len(made))
        while not self._liveness.stopping:
            order = ledger.claim_order(catalog, owner=self._components.owner, lease_s=LEASE_S, now=clock())
            if order is None:
                break
            self._step_safely(order)
        if forgotten := ledger.forget_orders(catalog, before=clock() - KEPT_S):
            log.info("Forgot %d orders of long ago.", forgotten)

    def _step_safely(self, order: Order) -> None:
        about = {"tenant": order.tenant_id, "generation": order.generation_id, "order": order.id}
        try:
            self._step(order)
        except Conflict as error:
            log.info("The order was lost to another process: %s", error, extra=about)
        except ProviderMisconfigured as error:
            log.warning("An order waits for a person: see %s.", error.setting, extra=about)
            self._later(order, told=str(error), look_s=LOOK_S, paused=True)
        except ProviderUnavailable as error:
            log.warning("The provider is not available for an order.", extra=about)
            self._later(order, told=str(error), look_s=max(self._settle_s, error.retry_after_s or LOOK_S))
        except (StorageError, OSError) as error:
            log.warning("An order is taken up again when its lease is over: %s", error, extra=about)

    def _step(self, order: Order) -> None:
        provider = self._provider(order)
        members = ledger.read_members(self._components.catalog, order)
        if provider is None:
            self._end(order, NOTHING, told="its model takes no orders any more")
        elif order.state == "placed":
            self._look(order, provider, members)
        elif order.state == "placing":
            self._resume(order, provider)
        elif not members:
            self._end(order, NOTHING, told="nothing of it is wanted any more")
        elif lost := self._unreadable(members):
            self._part_with(order, members, lost)
        else:
            self._place(order, provider, members)

    def _provider(self, order: Order) -> Provider | None:
        if order.model is None:
            return None
        embedder = self._components.embedders.of(order.model, order.dimensions)
        return embedder.provider() if isinstance(embedder, TakesOrders) else None

    def _place(self, order: Order, provider: Provider, members: Sequence[Member]) -> None:
        scratch = self._components.objects.scratch()
        with tempfile.NamedTemporaryFile(dir=scratch, prefix=f"{order.id}-", suffix=".jsonl") as file:
            repeated = self._write(file, provider, members)
            file.flush()
            if left := [member.batch_id for member in members if member.batch_id not in repeated]:
                ledger.detach(self._components.catalog, order, left, now=self._components.clock())
            self._renew(order)
            try:
                file_id = provider.upload(Path(file.name))
            except InputRejected as error:
                self._end(order, NOTHING, told=f"the provider refused its file: {error}")
                return
        hit("orders.uploaded")
        told: dict[str, list[int]] = {batch_id: rows for batch_id, rows in repeated.items() if rows}
        now = self._components.clock()
        placing = ledger.record_file(self._components.catalog, order, file_id=file_id, repeated=told, now=now)
        hit("orders.recorded_file")
        try:
            standing = provider.place(file_id, order_id=order.id)
        except InputRejected as error:
            self._refused(placing, provider, members, Standing("", "failed", 0, 0, None, None, file_id), str(error))
            return
        hit("orders.placed")
        self._record(placing, provider, standing)

    def _unreadable(self, members: Sequence[Member]) -> list[BatchId]:
        """Return the batches whose chunks are gone or damaged."""
        lost = []
        for member in members:
            try:
                staging.read_chunks(self._components.objects, member.input)
            except (NotFound, Damaged):
                lost.append(member.batch_id)
        return lost

    def _part_with(self, order: Order, members: Sequence[Member], lost: Sequence[BatchId]) -> None:
        """Let batches whose chunks cannot be read go the usual way, which knows what becomes of such; alone."""
        told = "chunks of it cannot be read"
        if len(lost) == len(members):
            self._end(order, NOTHING, told=told)
        else:
            ledger.split_order(self._components.catalog, order, lost, told=told, now=self._components.clock())

    def _write(self, file: IO[bytes], provider: Provider, members: Sequence[Member]) -> dict[BatchId, list[int]]:
        """Write the requests of as many batches as there is room for, each text once.

        Returns by batch the rows whose texts are in the requests of another one.
        """
        repeated: dict[BatchId, list[int]] = {}
        asked: set[bytes] = set()
        for member in members:
            rows = staging.read_chunks(self._components.objects, member.input)
            digests = {row: text_digest(rows.text(row)) for row in member.rows}
            again = [row for row, digest in digests.items() if digest in asked]
            lines = [
                provider.write_request(request.name, [rows.text(row) for row in request.rows])
                for request in requests_of(replace(member, repeated=frozenset(again)), rows)
            ]
            if repeated and file.tell() + sum(map(len, lines)) > MOST_BYTES:
                break
            file.writelines(lines)
            asked.update(digests.values())
            repeated[member.batch_id] = again
        return repeated

    def _record(self, order: Order, provider: Provider, standing: Standing) -> None:
        """Record what was placed. Who lost the order meanwhile takes back what it placed: another will place it."""
        told = f"ordered as {standing.provider_id}"
        now = self._components.clock()
        try:
            ledger.record_placed(
                self._components.catalog, order, provider_id=standing.provider_id, told=told, look_s=LOOK_S, now=now
            )
        except Conflict:
            with suppress(EmbeddingError):
                provider.cancel(standing.provider_id)
            raise
        log.info("An order of %d chunks was placed.", order.chunk_count, extra={"order": order.id})

    def _resume(self, order: Order, provider: Provider) -> None:
        """Find out whether an order was placed of which nobody wrote down its name at the provider."""
        now, placing_at = self._components.clock(), order.placing_at or order.created_at
        if now < placing_at + self._settle_s:
            self._later(order, told="it is being placed", look_s=placing_at + self._settle_s - now)
            return
        found = provider.find(order.id, since=placing_at - CLOCKS_S)
        found.sort(key=lambda standing: standing.state in {"failed", "cancelled", "cancelling"})
        if not found:
            with suppress(EmbeddingError):
                provider.delete_file(order.file_id or "")
            self._later(order, told="it is placed again", look_s=0.0, again=True)
            return
        self._record(order, provider, found[0])
        for other in found[1:]:
            if not other.is_over:
                provider.cancel(other.provider_id)

    def _look(self, order: Order, provider: Provider, members: Sequence[Member]) -> None:
        standing = provider.look(order.provider_id or "")
        if standing.is_over:
            self._over(order, provider, members, standing)
            return
        overdue = self._components.clock() > (order.placing_at or order.created_at) + LONGEST_S
        if standing.state != "cancelling" and (overdue or not members):
            standing = provider.cancel(standing.provider_id)
        if not members:
            self._end(order, NOTHING, told="nothing of it is wanted any more")
            return
        told = f"ordered as {standing.provider_id}, {standing.state}: {standing.done} of {standing.total} requests done"
        self._later(order, told=told, look_s=LOOK_S)

    def _over(self, order: Order, provider: Provider, members: Sequence[Member], standing: Standing) -> None:
        if standing.state == "failed":
            self._refused(order, provider, members, standing, "; ".join(message for _, message in standing.errors))
            return
        lost = {*self._unreadable(members)}
        wanted = [member for member in members if member.batch_id not in lost]
        unpacking = Unpacking(self._components, order, wanted, renew=lambda: self._renew(order))
        delivered = unpacking.unpack(provider, standing)
        hit("orders.collected")
        told = f"{standing.state}: {standing.done} of {standing.total} requests done"
        self._end(order, delivered, told=told, once_more=standing.state == "expired")
        hit("orders.ended")
        for file_id in (standing.input_file, standing.output_file, standing.error_file):
            with suppress(EmbeddingError):
                provider.delete_file(file_id or "") if file_id else None

    def _refused(
        self, order: Order, provider: Provider, members: Sequence[Member], standing: Standing, why: str
    ) -> None:
        """Take back an order that the provider refused as a whole, before anything of it was made."""
        with suppress(EmbeddingError):
            provider.delete_file(standing.input_file or order.file_id or "")
        now, told = self._components.clock(), f"the provider refused it: {why}"
        if standing.is_too_much and ledger.are_others_open(self._components.catalog, order):
            self._later(order, told=told, look_s=FULL_S, again=True)
        elif standing.is_too_much and len(members) > 1:
            half = [member.batch_id for member in members[len(members) // 2 :]]
            ledger.split_order(self._components.catalog, order, half, told=told, now=now)
        else:  # the usual way will tell whose fault it is
            self._end(order, NOTHING, told=told)

    def _renew(self, order: Order) -> None:
        ledger.renew_order(self._components.catalog, order, lease_s=LEASE_S, now=self._components.clock())

    def _later(self, order: Order, *, told: str, look_s: float, again: bool = False, paused: bool = False) -> None:
        now = self._components.clock()
        with suppress(Conflict):
            ledger.look_later(
                self._components.catalog, order, told=told, look_s=look_s, now=now, again=again, paused=paused
            )

    def _end(self, order: Order, delivered: Delivered, *, told: str, once_more: bool = False) -> None:
        now = self._components.clock()
        count = ledger.end_order(self._components.catalog, order, delivered, told=told, now=now, once_more=once_more)
        self._components.notices.work_ready()
        log.info("An order of %d batches is over: %s.", count, told, extra={"order": order.id})
