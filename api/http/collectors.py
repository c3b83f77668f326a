"""What /metrics reads when it is asked: the ledger and the snapshots. No label holds a tenant, a name or a text."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.storage.catalog.engine import Catalog
from penstock.storage.errors import StorageError
from penstock.storage.ledger.overview import Overview, overview
from penstock.storage.search.snapshots import SnapshotCache

log = logging.getLogger(__name__)


class LedgerCollector(Collector):
    """Depth and age of the work that waits. Without the catalog the figures are missing, the others are not."""

    def __init__(self, catalog: Catalog, *, clock: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        try:
            seen = overview(self._catalog, max_jobs=0)
        except StorageError as error:
            log.warning("metrics are without the ledger: %s", error, extra={"action": "ledger_not_measured"})
            return
        yield from _ledger(seen, now=self._clock())


def _ledger(seen: Overview, *, now: float) -> Iterator[Metric]:
    depth = GaugeMetricFamily("penstock_batches", "Unfinished batches", labels=["stage", "state"])
    oldest = GaugeMetricFamily("penstock_oldest_batch_seconds", "Age of the oldest unfinished batch", labels=["stage"])
    for stage, found in seen.stages.items():
        for state in ("ready", "sent", "running", "dead"):
            depth.add_metric([stage, state], getattr(found, state))
        oldest.add_metric([stage], _age(found.oldest_at, now=now))
    yield depth
    yield oldest
    yield GaugeMetricFamily("penstock_queued_documents", "Accepted documents in no batch yet", value=seen.queued)
    waited = _age(seen.oldest_queued_at, now=now)
    yield GaugeMetricFamily("penstock_oldest_queued_seconds", "Wait of the oldest of them", value=waited)
    hits = "Chunks whose vectors were in the cache, of all jobs"
    yield GaugeMetricFamily("penstock_embedding_cache_hits", hits, value=seen.embedding_cache_hits)
    reused = "Chunks whose vectors the version of their document before had, of all jobs"
    yield GaugeMetricFamily("penstock_chunks_reused", reused, value=seen.chunks_reused)


def _age(since: float | None, *, now: float) -> float:
    return 0.0 if since is None else max(0.0, now - since)


class SnapshotCollector(Collector):
    """What this process has open to search in, and what it refused."""

    def __init__(self, snapshots: SnapshotCache) -> None:
        self._snapshots = snapshots

    def collect(self) -> Iterable[Metric]:
        counts = self._snapshots.counts()
        yield GaugeMetricFamily("penstock_snapshots_open", "Opened snapshots", value=counts.open)
        yield GaugeMetricFamily("penstock_snapshots_bytes", "Size of their files", value=counts.size_bytes)
        yield CounterMetricFamily("penstock_snapshots_opened", "Versions opened", value=counts.opened)
        yield CounterMetricFamily("penstock_snapshots_refused", "Versions refused as damaged", value=counts.refused)
        yield CounterMetricFamily("penstock_snapshots_evicted", "Snapshots closed for room", value=counts.evicted)
