"""Tells receivers that jobs ended: the sender of webhooks, a thread of the beat role with an event loop of its own.

The ledger decides what is due. A receiver that is slow holds up its own tenant; dispatching never waits for one.
"""

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from penstock.settings.logs import failed_at, log_failure
from penstock.settings.model import Webhooks
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.jobs import JobInfo, get_job
from penstock.storage.catalog.webhook_secrets import signing_secrets
from penstock.storage.errors import NotFound, StorageError
from penstock.storage.figures import Figure, Figures
from penstock.storage.ledger.deliveries import (
    DeliveryInfo,
    claim_deliveries,
    end_delivery,
    forget_deliveries,
    retry_delivery,
)
from penstock.storage.tokens import token_of

from .backoff import full_jitter
from .posting import Posted, post
from .signing import signed_headers

log = logging.getLogger(__name__)

EVERY_S = 1.0
AT_ONCE = 16
PER_TENANT = 4
THREADS = 64
LONGEST_DELAY_S = 6 * 3_600.0
FORGET_EVERY_S = 3_600.0
MORE_S = 30.0  # a claim outlives the longest attempt by this
GONE = 410


class WebhookSender:
    """The loop. One per installation is enough; more are harmless."""

    def __init__(
        self, catalog: Catalog, *, settings: Webhooks, owner: str, clock: Callable[[], float], figures: Figures
    ) -> None:
        self._catalog = catalog
        self._settings = settings
        self._owner = owner
        self._clock = clock
        self._figures = figures
        self._forgot_at = 0.0
        self._outage = False

    def run(self, stop: threading.Event) -> None:
        """Send until ``stop`` is set; what is under way then is finished, or sent again by whoever comes next."""
        asyncio.run(self._run(stop))

    async def _run(self, stop: threading.Event) -> None:
        # Names that no server resolves hold a thread each for longer than an attempt may take.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="webhooks"))
        sending: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            for delivery in await self._claimed(AT_ONCE - len(sending)):
                sending.add(asyncio.create_task(self.send(delivery)))
            if sending:
                _, sending = await asyncio.wait(sending, timeout=EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.to_thread(stop.wait, EVERY_S)
        if sending:
            await asyncio.wait(sending, timeout=self._settings.timeout_s)

    async def _claimed(self, room: int) -> list[DeliveryInfo]:
        if room <= 0:
            return []
        try:
            found = await asyncio.to_thread(self._claim, room)
        except Exception as error:  # noqa: BLE001 an outage of anything must not end the loop
            if not self._outage:
                log.warning("Webhooks wait: %s", error if isinstance(error, StorageError) else failed_at(error))
            self._outage = True
            await asyncio.sleep(EVERY_S)
            return []
        self._outage = False
        return found

    def _claim(self, room: int) -> list[DeliveryInfo]:
        now = self._clock()
        if not 0 <= now - self._forgot_at < FORGET_EVERY_S:
            self._forgot_at = now
            forget_deliveries(self._catalog, now=now)
        lease_s = self._settings.timeout_s + MORE_S
        return claim_deliveries(
            self._catalog, owner=self._owner, lease_s=lease_s, now=now, limit=room, per_tenant=PER_TENANT
        )

    async def send(self, delivery: DeliveryInfo) -> None:
        """Make one attempt, and record how it ended. Raises nothing: a claim that lapses is taken again."""
        try:
            prepared = await asyncio.to_thread(self._prepared, delivery)
            if prepared is not None:
                posted = await post(
                    delivery.url,
                    *prepared,
                    private=self._settings.private,
                    timeout_s=self._settings.timeout_s,
                )
                await asyncio.to_thread(self._record, delivery, posted)
        except StorageError as error:
            log.warning("How a webhook ended was not recorded, it is sent again: %s", error, extra=_ids(delivery))
        except Exception as error:  # noqa: BLE001 one delivery must not end the loop
            log_failure(log, "A webhook could not be sent", error, extra=_ids(delivery))
            await asyncio.to_thread(self._give_back, delivery, failed_at(error))

    def _prepared(self, delivery: DeliveryInfo) -> tuple[bytes, dict[str, str]] | None:
        """Return body and headers; None when there is nothing to tell any more."""
        now = self._clock()
        secrets = signing_secrets(self._catalog, delivery.tenant_id, now=now)
        try:
            job = get_job(self._catalog, tenant=delivery.tenant_id, job_id=delivery.job_id)
        except NotFound:
            job = None
        if job is None or job.state == "running" or not secrets:
            why = "the job is gone" if job is None else "it runs again" if job.state == "running" else "no secret"
            end_delivery(self._catalog, delivery, state="dropped", now=now, error=why)
            return None
        body = payload(job)
        headers = signed_headers(secrets, message_id=delivery.id, timestamp=int(now), body=body)
        return body, {"Content-Type": "application/json", **headers}

    def _record(self, delivery: DeliveryInfo, posted: Posted) -> None:
        now = self._clock()
        self._figures.add([Figure("penstock_webhook_attempts", ("taken" if posted.taken else "refused",))])
        if posted.taken:
            end_delivery(self._catalog, delivery, state="delivered", now=now, status=posted.status)
            log.info("Told a receiver that a job ended.", extra=_ids(delivery))
            return
        if delivery.attempts >= self._settings.max_attempts or posted.status == GONE:
            end_delivery(self._catalog, delivery, state="dead", now=now, status=posted.status, error=posted.error)
            log.warning("A webhook is given up after %d attempts.", delivery.attempts, extra=_ids(delivery))
            return
        delay_s = full_jitter(delivery.attempts, first_s=self._settings.retry_delay_s, longest_s=LONGEST_DELAY_S)
        wish_s = min(posted.retry_after_s or 0.0, LONGEST_DELAY_S)
        at = now + max(delay_s, wish_s)
        retry_delivery(self._catalog, delivery, at=at, status=posted.status, error=posted.error)

    def _give_back(self, delivery: DeliveryInfo, error: str) -> None:
        try:
            self._record(delivery, Posted(None, error))
        except StorageError:
            log.info("A webhook stays claimed until its lease ends.", extra=_ids(delivery))


def payload(job: JobInfo) -> bytes:
    """Return what a receiver is told: the job as it is now, in the words of the HTTP interface."""
    ended = datetime.fromtimestamp(job.finished_at or job.created_at, UTC)
    data: dict[str, Any] = {
        "id": job.id,
        "tenant": job.tenant_id,
        "collection": job.collection,
        "state": job.state,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "documents": dict(job.documents),
        "unchanged": job.unchanged,
        "chunks_indexed": job.chunks_indexed,
        "cache_hits": job.cache_hits,
        "embedded_tokens": job.embedded_tokens,
        "cost_usd": job.cost_usd,
        "token": token_of(*job.token) if job.token else None,
    }
    told = {"type": f"job.{job.state}", "timestamp": ended.isoformat().replace("+00:00", "Z"), "data": data}
    return json.dumps(told, separators=(",", ":"), sort_keys=True).encode()


def _ids(delivery: DeliveryInfo) -> dict[str, str]:
    return {"tenant": delivery.tenant_id, "job": delivery.job_id, "delivery": delivery.id}
