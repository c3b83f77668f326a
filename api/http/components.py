"""What the routes work with, opened once per process. The only place here that starts and stops anything."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, TypeVar, cast

import anyio
import anyio.to_thread
import redis
from starlette.requests import Request

from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage.catalog.collections import list_collections
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.migrations import check_schema
from penstock.storage.catalog.tenants import list_tenants
from penstock.storage.notices import Notices
from penstock.storage.objects import ObjectStore
from penstock.storage.presence import Presence
from penstock.storage.snapshots import SnapshotCache

from .embedders import Embedders
from .gate import KeyGate
from .lookups import Lookups
from .metrics import Metrics

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

CATALOG_THREADS = 8
SUBMISSIONS = 2  # at once: each holds its documents in memory, and they take turns writing anyway


@dataclass(frozen=True)
class Components:
    """Everything a route may use. ``searches`` are the threads that run searches; the rest waits elsewhere."""

    settings: Settings
    catalog: Catalog
    objects: ObjectStore
    snapshots: SnapshotCache
    embedders: Embedders
    notices: Notices
    presence: Presence
    searches: ThreadPoolExecutor
    gate: KeyGate
    lookups: Lookups
    metrics: Metrics
    clock: Callable[[], float] = time.time
    submissions: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(SUBMISSIONS))
    reads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(CATALOG_THREADS))

    async def call(self, function: Callable[Concatenate[Catalog, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``function(catalog, ...)``, run in a thread: SQL would hold up every other request."""
        return await anyio.to_thread.run_sync(lambda: function(self.catalog, *args, **kwargs), limiter=self.reads)


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
        _follow(components, opened)
        yield components
