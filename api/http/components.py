"""What the routes work with, opened once per process. The only place here that starts and stops anything."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar, cast

import anyio
import anyio.to_thread
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from starlette.requests import Request

from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage.cache import CacheServer, EmbeddingCache
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.jobs import JobInfo, read_jobs
from penstock.storage.catalog.migrations import check_schema
from penstock.storage.catalog.progress import Tallies
from penstock.storage.catalog.recorder import QueryRecorder
from penstock.storage.costs import SearchCosts
from penstock.storage.figures import Figures
from penstock.storage.ids import GenerationId, JobId
from penstock.storage.ledger.overview import models_in_use
from penstock.storage.notices import Notices
from penstock.storage.objects.store import ObjectStore
from penstock.storage.presence import Presence
from penstock.storage.search.snapshots import SnapshotCache

from .collectors import (
    CacheCollector,
    FiguresCollector,
    LedgerCollector,
    RatesCollector,
    ScheduleCollector,
    SnapshotCollector,
)
from .comparisons import Comparisons
from .cutting import Cutter
from .embedders import QueryEmbedders
from .feeds import JobFeeds
from .gate import KeyGate
from .health import Health
from .idempotency import KeysInUse
from .lookups import Lookups
from .metrics import Metrics
from .places import Places
from .publications import Publications

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

CATALOG_THREADS = 8
PATIENT_THREADS = 32
CHANGES = 32  # deletes and retries at once: each may take minutes
REMEMBERED_S = 1.0  # where a collection is, for searches
PING_S = 0.5
CANCELS = 2  # transactions at once of whoever cancels: they take turns writing, and others want to be answered
ESTIMATES = 2  # at once: each holds its documents in memory, and they take turns being cut
SUBMISSIONS = 2  # at once: each holds its documents in memory, and they take turns writing anyway


@dataclass(frozen=True)
class Components:
    """Everything a route may use.

    ``searches``: as many threads as searches are worth running at once. ``patient``: those of searches that wait for
    somebody else, a remote model or the catalog, and would keep the others waiting.
    """

    settings: Settings
    catalog: Catalog
    objects: ObjectStore
    snapshots: SnapshotCache
    recorder: QueryRecorder
    embedders: QueryEmbedders
    search_costs: SearchCosts
    cache: EmbeddingCache
    cutter: Cutter
    notices: Notices
    presence: Presence
    redis: redis.Redis
    searches: ThreadPoolExecutor
    patient: ThreadPoolExecutor
    gate: KeyGate
    lookups: Lookups
    metrics: Metrics
    tallies: Tallies
    feeds: JobFeeds
    health: Health
    places: Places
    publications: Publications = field(default_factory=Publications)
    comparisons: Comparisons = field(default_factory=Comparisons)
    keys_in_use: KeysInUse = field(default_factory=KeysInUse)
    clock: Callable[[], float] = time.time
    submissions: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(SUBMISSIONS))
    cancels: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(CANCELS))
    reads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(CATALOG_THREADS))
    changes: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(CHANGES))
    estimates: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(ESTIMATES))
    probes: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))
    shadows: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))

    async def call(self, function: Callable[Concatenate[Catalog, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``function(catalog, ...)``, run in a thread: SQL would hold up every other request."""
        return await anyio.to_thread.run_sync(lambda: function(self.catalog, *args, **kwargs), limiter=self.reads)

    async def warm(self, model: str, dimensions: int) -> None:
        """Open a model that a new collection needs before its first query comes."""
        await anyio.to_thread.run_sync(self.embedders.warm, model, dimensions)


def components_of(request: Request) -> Components:
    """Return the components of the application that serves this request."""
    return cast("Components", request.app.state.components)


@contextmanager
def open_components(settings: Settings) -> Iterator[Components]:
    """Open everything for the time of the block: nothing that a query needs is left to the first query.

    Raises:
        Unsupported, Unavailable: the catalog's schema is not this program's.
    """
    with ExitStack() as opened:
        catalog = wiring.open_catalog(settings)
        opened.callback(catalog.dispose)
        check_schema(catalog)
        components = _assembled(settings, catalog, opened)
        _warm(components)
        _follow(components, opened)
        yield components


def _assembled(settings: Settings, catalog: Catalog, opened: ExitStack) -> Components:
    objects = wiring.open_objects(settings)
    snapshots = wiring.new_snapshots(settings, catalog, objects)
    opened.callback(snapshots.close)
    recorder = wiring.new_recorder(settings, catalog)
    opened.callback(recorder.close)
    embedders = QueryEmbedders(settings)
    opened.callback(embedders.close)
    search_costs = opened.enter_context(SearchCosts(catalog))
    cutter = Cutter(settings)
    opened.callback(cutter.close)
    notices = wiring.open_notices(settings)
    opened.callback(notices.close)
    searches = ThreadPoolExecutor(settings.api.search_threads, thread_name_prefix="search")
    opened.callback(searches.shutdown)
    patient = ThreadPoolExecutor(PATIENT_THREADS, thread_name_prefix="patient")
    opened.callback(patient.shutdown)
    server = _impatient(wiring.redis_url(settings))
    opened.callback(server.close)
    presence = Presence(server)
    reads, tallies = anyio.CapacityLimiter(CATALOG_THREADS), Tallies()

    async def look(job_ids: Collection[JobId]) -> Mapping[JobId, JobInfo]:
        return await anyio.to_thread.run_sync(partial(read_jobs, catalog, job_ids, tallies=tallies), limiter=reads)

    return Components(
        settings=settings,
        catalog=catalog,
        objects=objects,
        snapshots=snapshots,
        recorder=recorder,
        embedders=embedders,
        search_costs=search_costs,
        cache=EmbeddingCache(
            CacheServer(server, ttl_s=settings.embedding.cache_ttl_s, limit_bytes=settings.embedding.cache_bytes),
            shared=settings.embedding.share_cache,
        ),
        cutter=cutter,
        notices=notices,
        presence=presence,
        redis=server,
        searches=searches,
        patient=patient,
        gate=KeyGate(catalog),
        lookups=Lookups(catalog, remembered_s=min(REMEMBERED_S, settings.search.poll_s)),
        metrics=Metrics(
            [
                LedgerCollector(catalog),
                ScheduleCollector(catalog),
                FiguresCollector(Figures(server)),
                CacheCollector(server, limit_bytes=settings.embedding.cache_bytes),
                RatesCollector(server),
                SnapshotCollector(snapshots),
            ]
        ),
        tallies=tallies,
        feeds=JobFeeds(look, most=settings.api.max_streams, most_per_tenant=settings.api.max_streams_per_tenant),
        places=Places(most=settings.api.max_waits, most_per_tenant=settings.api.max_waits_per_tenant),
        health=Health(
            catalog=catalog,
            objects=objects,
            embedders=embedders,
            model=settings.embedding.model,
            server=server,
            presence=presence,
        ),
        reads=reads,
    )


def _impatient(url: str) -> redis.Redis:
    """Return a client for asking whether the server is there: an answer that takes long is a no."""
    return redis.Redis.from_url(url, socket_timeout=PING_S, socket_connect_timeout=PING_S, retry=Retry(NoBackoff(), 0))


def _warm(components: Components) -> None:
    components.snapshots.prepare()
    components.embedders.warm_all(models_in_use(components.catalog))


def _follow(components: Components, opened: ExitStack) -> None:
    """Open new versions when the writer announces them, rather than when someone searches."""
    stop = threading.Event()

    def _refresh(tenant: str, generation_id: str, _version: int) -> None:
        components.feeds.wake()
        components.publications.tell(tenant)
        components.snapshots.refresh(GenerationId(generation_id))

    listener = threading.Thread(
        target=components.notices.listen,
        args=[{"published": _refresh, "work_ready": components.feeds.wake}, stop],
        name="notices",
        daemon=True,
    )
    opened.callback(listener.join)
    opened.callback(stop.set)
    listener.start()
