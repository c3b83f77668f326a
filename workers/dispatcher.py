"""Sends what the ledger says is ready, a little at a time, and takes back what nobody holds.

The ledger decides what is ready and which tenant is next; the queues are kept short, so that losing them costs little.
A message that cannot be sent stays in the ledger and is sent again later; nothing here may end the loop.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.settings.logs import failed_at
from penstock.settings.model import Workers
from penstock.storage import ledger
from penstock.storage.catalog import backlogs
from penstock.storage.catalog.cancelling import finish_cancelled
from penstock.storage.catalog.engine import Catalog
from penstock.storage.costs import charge_lapsed, give_back_unordered
from penstock.storage.errors import StorageError
from penstock.storage.ledger.due import Due, look
from penstock.storage.ledger.overview import unwritten_shards
from penstock.storage.ledger.turns import CLAIMED_IN_TURN
from penstock.storage.reembedding.reminders import wake_missed

from . import routes
from .backoff import full_jitter
from .liveness import Liveness

log = logging.getLogger(__name__)

IDLE_S = 0.5  # what a lost notification may cost
GATHER_S = 0.005  # notices that come together are served together
GATHER_SHARE = 1.5  # a busy dispatcher takes at most two fifths of a core
GATHER_MOST_S = 1.0  # a turn may have waited for a broker that was away: what is due by now waited with it
RECONCILE_EVERY_S = 5.0
RECOUNT_EVERY_S = 60.0  # of all that waits: a tenth of a second for a million documents
OUTAGE_PAUSE_S = 1.0
# A late message is harmless, its batch was sent again; but each costs its reader a transaction. The moment is told by
# this machine's clock: a worker whose clock is further ahead drops every message, so it is far away. And it must be
# later than the resend, or batches would count as sent whose messages are gone.
EXPIRES_LEAST_S = 600.0
EXPIRES_RESENDS = 4
CHECKS = 2  # of re-embeddings at once: they search
SHARD_BATCHES = 1_000  # those batches marked as sent at once; one message per shard covers them all
STAGED_PUBLISHES = 5
EXPRESS_DEPTH = 4  # short batches of a stage that may wait for the one worker which does nothing else; more go to all
TASKS = {"chunk": routes.CHUNK, "embed": routes.EMBED, "merge": routes.MERGE, "check": routes.CHECK}


@dataclass(frozen=True)
class Message:
    """One task to send: a batch id, or for a writer its shard. ``expires_s``: after this nobody need read it."""

    task: str
    queue: str
    argument: str | int
    expires_s: float | None = None


class Sender(Protocol):
    """The queue as the dispatcher sees it. Its methods raise anything when the broker does not answer."""

    def send(self, messages: Sequence[Message]) -> None:
        """Send all of them; when it raises, some may have arrived."""

    def waiting(self, queue: str) -> int:
        """Return how many messages nobody has taken yet."""


class Dispatcher:
    """The loop. One per installation is enough; more are harmless."""

    def __init__(
        self,
        catalog: Catalog,
        sender: Sender,
        *,
        workers: Workers,
        liveness: Liveness,
        has_express: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``has_express``: whether a worker of short batches is there; asked every few seconds."""
        self._catalog = catalog
        self._sender = sender
        self._workers = workers
        self._liveness = liveness
        self._clock = clock
        self._has_express = has_express
        self._express = False
        self._wake = threading.Event()
        self._reconciled_at = 0.0
        self._recounted_at = 0.0
        self._outage = False
        self._stranded: set[int] = set()
        self._unwritten: set[int] = set()

    def wake(self) -> None:
        """Look at the ledger now: something became ready."""
        self._wake.set()

    def run(self, stop: threading.Event) -> None:
        """Dispatch until ``stop`` is set; `wake` makes it notice at once."""
        while not stop.is_set():
            self._wake.wait(OUTAGE_PAUSE_S if self._outage else IDLE_S)
            if self._outage:
                stop.wait(OUTAGE_PAUSE_S)  # a broker that is down must not be asked at every notice
            self._wake.clear()
            began = time.thread_time()  # what it waits for others, it takes from nobody
            self.turn_safely()
            self._liveness.moved()
            stop.wait(min(GATHER_MOST_S, max(GATHER_S, GATHER_SHARE * (time.thread_time() - began))))

    def turn_safely(self) -> None:
        """Dispatch once. What goes wrong is logged when it begins and when it is over."""
        try:
            self.turn()
        except Exception as error:  # noqa: BLE001 an outage of anything must not end the loop
            if not self._outage:
                told = str(error) if isinstance(error, StorageError) else failed_at(error)
                log.warning("Nothing can be sent; accepted work waits in the ledger: %s.", told)
            self._outage = True
        else:
            if self._outage:
                log.info("Sending again.")
            self._outage = False

    def turn(self) -> int:
        """Put right and look for what expired when it is time, then send what is due. Returns how many were sent."""
        self._reconcile()  # whether the broker is there or not
        if self._outage:
            self._sender.waiting("chunk")  # raises while the broker is away, before anything is marked as sent
        due = look(self._catalog, now=self._clock())
        room = self._room(due)
        sent = 0
        for stage in ("rollback", "swap", "expire", "follow", "index"):
            sent += self._send(self._shard_messages(stage) if stage in due.stages else [])
        for stage in ("merge", "check", "embed", "chunk"):
            if stage == "chunk":
                sent += self._send(self._chunk_messages(due, limit=room["chunk"]))
            elif stage in due.stages:
                sent += self._send(self._messages(stage, due, limit=room[stage]))
        return sent

    def _depths(self, due: Due) -> dict[str, int]:
        """Return how many batches of each stage may be in flight."""
        workers, depth = self._workers, self._workers.queue_depth
        # A batch holds what was queued when it was formed: formed late, it is full and cheap per document.
        chunk = min(depth, 2 * max(workers.chunk_processes, due.running["chunk"]) + 2)
        return {"chunk": chunk, "embed": depth, "merge": max(4, depth // 4), "check": CHECKS}

    def _room(self, due: Due) -> dict[str, int]:
        caps = self._depths(due)
        room = {stage: cap - due.in_flight[stage] for stage, cap in caps.items()}
        for stage in (due.stages | {"chunk"} if due.queued else due.stages) & room.keys():
            if room[stage] > 0:  # in a queue that nobody reads, old messages must not pile up with every resend
                room[stage] = min(room[stage], caps[stage] - self._sender.waiting(routes.TASK_QUEUES[TASKS[stage]]))
        if room["merge"] < caps["merge"] // 2:
            # A merge may take an hour. Several are chosen together, one of each tenant first; chosen one by one, the
            # oldest would always come first, and with it whoever has many.
            room["merge"] = 0
        return room

    def _chunk_messages(self, due: Due, *, limit: int) -> list[Message]:
        ahead, caps = ledger.Caps(self._workers.queue_depth), self._caps("chunk", due)
        forming = ledger.Forming(limit, caps=caps, ahead=ahead, staged=self._staged()) if due.queued else None
        return self._messages("chunk", due, limit=limit, forming=forming) if forming or "chunk" in due.stages else []

    def _caps(self, stage: str, due: Due) -> ledger.Caps | None:
        """Return what a tenant may have of a stage; merges and checks only take turns."""
        if stage not in CLAIMED_IN_TURN:
            return None
        return ledger.Caps(self._depths(due)[stage], self._workers.tenant_percent / 100)

    def _staged(self) -> ledger.Caps:
        """Return how many chunks may wait for each writer: enough that it never waits, however slow it is."""
        workers = self._workers
        most = workers.max_staged_chunks or STAGED_PUBLISHES * workers.max_chunks_per_publish
        return ledger.Caps(most, workers.tenant_percent / 100)

    def _messages(self, stage: str, due: Due, *, limit: int, forming: ledger.Forming | None = None) -> list[Message]:
        if limit <= 0:
            return []
        task = TASKS[stage]
        express = max(0, EXPRESS_DEPTH - due.express[stage]) if self._express else 0
        taken = self._take(stage, limit=limit, caps=self._caps(stage, due), express=express, forming=forming)
        # Merges wait for one that may take an hour. Were they gone by then, the next choice would begin with the oldest
        # again, and whoever came second would never have a turn.
        lasting_s = max(EXPIRES_LEAST_S, EXPIRES_RESENDS * self._workers.resend_after_s)
        expires_s = None if stage == "merge" else lasting_s
        queues = {False: routes.TASK_QUEUES[task], True: routes.EXPRESS_QUEUE}
        return [Message(task, queues[batch.express], batch.id, expires_s) for batch in taken]

    def _shard_messages(self, stage: str) -> list[Message]:
        shards = {batch.shard for batch in self._take(stage, limit=SHARD_BATCHES)}
        queues = {shard: routes.index_queue(shard) for shard in sorted(shards - self._without_writer(shards))}
        # A message that waits already will see these batches too; for that it must not expire.
        return [
            Message(routes.INDEX, queue, shard) for shard, queue in queues.items() if not self._sender.waiting(queue)
        ]

    def _without_writer(self, shards: set[int]) -> set[int]:
        """Return those of ``shards`` that have no queue here: their collections were made under a higher setting."""
        stranded = {shard for shard in shards if shard >= self._workers.shards}
        for shard in sorted(stranded - self._stranded):  # said once: they become due again and again
            log.warning(
                "Nobody writes this shard, its documents wait in the ledger: set workers.shards to at least %d.",
                shard + 1,
                extra={"shard": shard},
            )
        self._stranded |= stranded
        return stranded

    def _tell_unwritten(self, now: float) -> None:
        """Say once of each shard that nobody writes it though work waits, and when somebody does again."""
        found = set(unwritten_shards(self._catalog, now=now))
        for shard in sorted(found - self._unwritten - self._stranded):
            log.warning(
                "Nobody writes this shard, its documents wait in the ledger: is `penstock worker index` running?",
                extra={"shard": shard},
            )
        for shard in sorted(self._unwritten - found):
            log.info("What waited for the writer of this shard waits no more.", extra={"shard": shard})
        self._unwritten = found

    def _take(
        self,
        stage: str,
        *,
        limit: int,
        caps: ledger.Caps | None = None,
        express: int = 0,
        forming: ledger.Forming | None = None,
    ) -> list[ledger.ReadyBatch]:
        return ledger.take_ready(
            self._catalog,
            stage=stage,
            now=self._clock(),
            limit=limit,
            resend_after_s=self._workers.resend_after_s,
            caps=caps,
            express=express,
            forming=forming,
        )

    def _send(self, messages: Sequence[Message]) -> int:
        if messages:
            self._sender.send(messages)
        return len(messages)

    def _delay_s(self, attempts: int) -> float:
        """Return how long a batch waits whose worker died: whatever died together does not come back together."""
        return full_jitter(attempts, first_s=self._workers.retry_delay_s)

    def _reconcile(self) -> None:
        now = self._clock()
        if 0 <= now - self._reconciled_at < RECONCILE_EVERY_S:
            return
        self._reconciled_at = now
        self._express = self._has_express()
        found = ledger.reconcile(self._catalog, now=now, max_attempts=self._workers.max_attempts, delay_s=self._delay_s)
        charge_lapsed(self._catalog, now=now)
        give_back_unordered(self._catalog, now=now)
        ledger.open_expiries(self._catalog, now=now)
        ledger.bring_stragglers_over(self._catalog, now=now)
        wake_missed(self._catalog, now=now)
        finish_cancelled(self._catalog, now=now)
        self._tell_unwritten(now)
        recount = not 0 <= now - self._recounted_at < RECOUNT_EVERY_S
        self._recounted_at = now if recount else self._recounted_at
        backlogs.measure(self._catalog, now=now, recount=recount)
        if found.released or found.resent or found.apart or found.dead or found.joined:
            log.info("Put right what was left behind: %s.", found)
