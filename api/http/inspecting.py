"""The figures of an index, and the probe of its recall: in the search threads, one short piece of work after another.

Between two pieces searches have their turn, so that a probe of a large index takes longer and holds up nobody.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.engine import Catalog
from penstock.storage.ids import GenerationId
from penstock.storage.inspection.probing import NEAREST, Probe, ProbeResult, Sampled
from penstock.storage.inspection.statistics import read_statistics
from penstock.storage.ledger.overview import open_merges
from penstock.storage.ledger.setbacks import Setback, read_setbacks
from penstock.storage.search.snapshots import Snapshot

from . import answers
from .components import Components

PROBE_S = 5.0  # then it ends, with what was asked by then
T = TypeVar("T")


async def index_stats(components: Components, info: CollectionInfo, *, probe: int) -> dict[str, Any]:
    """Return what `wire.IndexStats` tells, of the version that searches see now. Raises what a search raises."""
    generation = info.generation
    merges = await components.call(open_merges, generation.id)
    setback = await components.call(_setback, generation.id, max_attempts=components.settings.workers.max_attempts)
    async with _snapshot(components, info) as snapshot:
        figures = await _in_search_thread(components, lambda: read_statistics(snapshot).described())
        probed = await _probed(components, snapshot, rows=probe) if probe else None
        published_at = snapshot.manifest.created_at if snapshot.manifest else None
        return {
            "collection": info.name,
            "model": generation.model,
            "dimensions": generation.dimensions,
            "metric": generation.metric,
            "generation": generation.id,
            "version": snapshot.version,
            "published_at": published_at,
            **figures,
            "merges": [vars(merge) for merge in merges],
            "setback": None if setback is None else answers.setback(setback),
            "probe": probed.described() if probed else None,
        }


def _setback(catalog: Catalog, generation_id: GenerationId, *, max_attempts: int) -> Setback | None:
    with catalog.read() as connection:
        return read_setbacks(connection, [generation_id], max_attempts=max_attempts).get(generation_id)


async def _probed(components: Components, snapshot: Snapshot, *, rows: int) -> ProbeResult:
    ef = max(components.settings.search.ef, 2 * NEAREST)  # as a search for so many hits would choose
    now, ends_at = components.clock(), time.monotonic() + PROBE_S
    prepared = await _in_search_thread(components, lambda: Probe(snapshot, rows=rows, ef=ef, now=now))
    answers: list[Sampled] = []
    while len(answers) < len(prepared) and time.monotonic() < ends_at:
        number = len(answers)
        answers.append(await _in_search_thread(components, partial(prepared.ask, number)))
    return prepared.result(answers)


@asynccontextmanager
async def _snapshot(components: Components, info: CollectionInfo) -> AsyncIterator[Snapshot]:
    """Give the snapshot that searches use, held until the block ends."""

    def held() -> Snapshot:
        with components.snapshots.get(info.generation.tenant_id, info.generation.id) as snapshot:
            snapshot.hold()  # cannot fail: it is held already
            return snapshot

    taken = components.patient.submit(held)
    try:
        snapshot = await asyncio.wrap_future(taken)
    except asyncio.CancelledError:
        taken.add_done_callback(_let_go)  # the thread goes on, and would hold it for nobody
        raise
    try:
        yield snapshot
    finally:
        snapshot.release()


def _let_go(taken: Future[Snapshot]) -> None:
    if not taken.cancelled() and taken.exception() is None:
        taken.result().release()


async def _in_search_thread(components: Components, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(components.searches, work)
