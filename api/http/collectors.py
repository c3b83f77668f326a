"""What /metrics reads when it is asked: the ledger, what the roles added up, and the snapshots.

Labels are our own words; one figure has tenants, those whose work waits longest, and one the schedules that ended well
longest ago, so there are never many. No label holds another name, or a text.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis, RedisError

from penstock.storage.cache import read_total
from penstock.storage.catalog.engine import Catalog
from penstock.storage.errors import StorageError, Unavailable
from penstock.storage.figures import FAMILIES, Family, Figures
from penstock.storage.ids import TenantId
from penstock.storage.ledger.overview import Overview, dead_documents, oldest_waiting, overview
from penstock.storage.rates import read_rates
from penstock.storage.schedules import oldest_successes
from penstock.storage.search.snapshots import SnapshotCache

log = logging.getLogger(__name__)

MOST_TENANTS = 20
MOST_SCHEDULES = 50
OTHERS = "_others"  # no tenant can be named so


class LedgerCollector(Collector):
    """Depth and age of the work that waits. Without the catalog the figures are missing, the others are not."""

    def __init__(self, catalog: Catalog, *, clock: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        try:
            seen = overview(self._catalog, max_jobs=0)
            waiting, dead = oldest_waiting(self._catalog), dead_documents(self._catalog)
        except StorageError as error:
            log.warning("metrics are without the ledger: %s", error, extra={"action": "ledger_not_measured"})
            return
        now = self._clock()
        yield from _ledger(seen, now=now)
        yield _waiting(waiting, now=now)
        yield _dead(dead)


def _ledger(seen: Overview, *, now: float) -> Iterator[Metric]:
    depth = GaugeMetricFamily("penstock_batches", "Unfinished batches", labels=["stage", "state"])
    oldest = GaugeMetricFamily("penstock_oldest_batch_seconds", "Age of the oldest unfinished batch", labels=["stage"])
    for stage, found in seen.stages.items():
        for state in ("ready", "sent", "running", "dead"):
            depth.add_metric([stage, state], getattr(found, state))
        oldest.add_metric([stage], _age(found.oldest_at, now=now))
    yield depth
    yield oldest
    paused = float(seen.pauses.since is not None)
    yield GaugeMetricFamily("penstock_paused", "1 while everything is paused", value=paused)
    alone = "Tenants that are paused on their own"
    yield GaugeMetricFamily("penstock_paused_tenants", alone, value=len(seen.pauses.tenants))
    yield GaugeMetricFamily("penstock_queued_documents", "Accepted documents in no batch yet", value=seen.queued)
    waited = _age(seen.oldest_queued_at, now=now)
    yield GaugeMetricFamily("penstock_oldest_queued_seconds", "Wait of the oldest of them", value=waited)
    hits = "Chunks whose vectors were in the cache, of all jobs"
    yield GaugeMetricFamily("penstock_embedding_cache_hits", hits, value=seen.embedding_cache_hits)
    reused = "Chunks whose vectors the version of their document before had, of all jobs"
    yield GaugeMetricFamily("penstock_chunks_reused", reused, value=seen.chunks_reused)


def _waiting(oldest: Mapping[tuple[TenantId, str], float], *, now: float) -> Metric:
    """Return how long work waits by tenant and stage: of the tenants that wait longest, and of all others together."""
    told = GaugeMetricFamily(
        "penstock_oldest_waiting_seconds",
        f"Age of the oldest work that waits for a worker; {MOST_TENANTS} tenants, the others as {OTHERS}",
        labels=["stage", "tenant"],
    )
    worst: dict[str, float] = {}
    for (tenant, _), at in oldest.items():
        worst[tenant] = min(at, worst.get(tenant, at))
    shown = set(sorted(worst, key=lambda tenant: worst[tenant])[:MOST_TENANTS])
    ages: dict[tuple[str, str], float] = {}
    for (tenant, stage), at in oldest.items():
        place = (stage, tenant if tenant in shown else OTHERS)
        ages[place] = max(_age(at, now=now), ages.get(place, 0.0))
    for place, age in sorted(ages.items()):
        told.add_metric(place, age)
    return told


def _dead(found: Mapping[str, int]) -> Metric:
    told = GaugeMetricFamily("penstock_dead_documents", "Documents that failed and wait for a person", labels=["stage"])
    for stage, count in found.items():
        told.add_metric([stage], count)
    return told


class ScheduleCollector(Collector):
    """How long ago schedules ended well: those longest ago, of which there are never many."""

    def __init__(self, catalog: Catalog, *, clock: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        try:
            found = oldest_successes(self._catalog, limit=MOST_SCHEDULES)
        except StorageError as error:
            log.warning("metrics are without schedules: %s", error, extra={"action": "schedules_not_measured"})
            return
        told = GaugeMetricFamily(
            "penstock_schedule_last_success_seconds",
            f"Since the last run that ended well, or the making of the schedule; {MOST_SCHEDULES} longest ago",
            labels=["schedule", "tenant", "action"],
        )
        for schedule_id, tenant, action, at in found:
            told.add_metric([schedule_id, tenant or "", action], _age(at, now=self._clock()))
        yield told


class FiguresCollector(Collector):
    """What the roles measured, of all their processes together. Without Redis it is missing, the rest is not."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        try:
            found = self._figures.read()
        except RedisError as error:
            log.warning("metrics are without the roles: %s", error, extra={"action": "roles_not_measured"})
            return
        for name, family in FAMILIES.items():
            mine = {labels: parts for (of, labels), parts in found.items() if of == name}
            yield _histogram(name, family, mine) if family.buckets_s else _counter(name, family, mine)


def _counter(name: str, family: Family, found: Mapping[tuple[str, ...], Mapping[str, float]]) -> Metric:
    told = CounterMetricFamily(name, family.help, labels=family.labels)
    for labels, parts in sorted(found.items()):
        told.add_metric(labels, parts.get("count", 0.0))
    return told


def _histogram(name: str, family: Family, found: Mapping[tuple[str, ...], Mapping[str, float]]) -> Metric:
    told = HistogramMetricFamily(name, family.help, labels=family.labels)
    for labels, parts in sorted(found.items()):
        below, buckets = 0.0, []
        for bound in (*map(str, family.buckets_s), "+Inf"):
            below += parts.get(bound, 0.0)
            buckets.append((bound, below))
        told.add_metric(labels, buckets, parts.get("sum", 0.0))
    return told


def _age(since: float | None, *, now: float) -> float:
    return 0.0 if since is None else max(0.0, now - since)


class CacheCollector(Collector):
    """What the cache of vectors did for all tenants. Without its server it is missing, the rest is not."""

    def __init__(self, server: Redis, *, limit_bytes: int) -> None:
        self._server = server
        self._limit_bytes = limit_bytes

    def collect(self) -> Iterator[Metric]:
        try:
            use = read_total(self._server)
        except Unavailable as error:
            log.warning("metrics are without the cache: %s", error, extra={"action": "cache_not_measured"})
            return
        looked = CounterMetricFamily("penstock_cache_lookups", "Texts looked up in the cache", labels=["outcome"])
        for outcome, times in (("hit", use.hits), ("miss", use.misses)):
            looked.add_metric([outcome], times)
        yield looked
        yield CounterMetricFamily("penstock_cache_damaged", "Damaged entries, among the misses", value=use.damaged)
        yield CounterMetricFamily("penstock_cache_evicted", "Vectors forgotten for room", value=use.evicted)
        yield CounterMetricFamily("penstock_cache_saved_tokens", "Tokens of the hits", value=use.saved_tokens)
        yield CounterMetricFamily("penstock_cache_saved_usd", "Their price in US dollars", value=use.saved_usd)
        yield GaugeMetricFamily("penstock_cache_vectors", "Vectors that are kept", value=use.vectors)
        yield GaugeMetricFamily("penstock_cache_bytes", "Memory that they take", value=use.size_bytes)
        yield GaugeMetricFamily("penstock_cache_limit_bytes", "What they may take", value=self._limit_bytes)


class RatesCollector(Collector):
    """What remote models are asked at most, of all of them together: their names are no words of ours."""

    def __init__(self, server: Redis) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        try:
            lines = read_rates(self._server)
        except Unavailable as error:
            log.warning("metrics are without the rate limits: %s", error, extra={"action": "rates_not_measured"})
            return
        calls = CounterMetricFamily("penstock_provider_calls", "Calls of remote models", labels=["outcome"])
        for outcome in ("granted", "delayed", "held", "refused"):
            calls.add_metric([outcome], sum(getattr(line, outcome) for line in lines))
        yield calls
        slow = sum(line.percent < 100 for line in lines)
        yield GaugeMetricFamily("penstock_provider_slowed", "Remote models asked less than their limits", value=slow)
        blocked = max([line.blocked_s for line in lines], default=0.0)
        yield GaugeMetricFamily("penstock_provider_blocked_seconds", "Until all of them may be asked", value=blocked)


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
