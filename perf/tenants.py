"""What do a thousand tenants cost, beside one of the same total size, and how long is the first search of a cold one?

A thousand tenants of a thousand rows each, searched in turns through the reader's cache; against one tenant of a
million rows, and against one of the thousand searched again and again, which is what keeping them apart costs. Cold:
the cache is new, the files are in memory.

Doubts: a thousand rows are scanned, a million are walked; so the first ratio says that small tenants are quick. The
page cache is warm even where the tenant is cold.
"""

import time

import indexes
import numpy as np
import report
import vectors as made_up
from numpy.typing import NDArray

from penstock.storage.catalog.collections import list_collections
from penstock.storage.catalog.engine import Catalog
from penstock.storage.ids import GenerationId, TenantId
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing.publisher import Publisher, acquire_lease
from penstock.storage.search import planner
from penstock.storage.search.snapshots import SnapshotCache

K, EF = 10, 64
ROWS = 1_000

Tenant = tuple[TenantId, GenerationId]


def main() -> None:
    flags = report.parser("What do a thousand tenants cost, and how long is the first search of a cold one?")
    flags.add_argument("--tenants", type=int, default=1_000)
    given = flags.parse_args()
    count = min(given.tenants, 50) if given.quick else given.tenants
    planner.prepare()
    catalog, objects, tenants = _tenants(count)
    large = indexes.built(count * ROWS)
    queries = made_up.queries(2_000, dimensions=indexes.DIMENSIONS)
    cold = _cold(catalog, objects, tenants, queries)
    cache = _cache(catalog, objects)
    one = _cache(large.catalog, large.objects)
    alone, many, single = [], [], []
    for turn in range(3):
        for at, query in enumerate(queries):
            own = _ms(cache, tenants[at % count], query), _ms(cache, tenants[0], query)
            other = _ms(one, (indexes.TENANT, large.generation.id), query)
            if turn:
                many.append(own[0])
                alone.append(own[1])
                single.append(other)
    cache.close()
    one.close()
    answer = report.Report("tenants", {**report.conditions(), "tenants": count, "rows each": ROWS, "k": K})
    figures = {
        "overhead": (float(np.median(many) / np.median(single)) - 1, "many / one of the same total", "under 0.05"),
        "overhead_same_size": (
            float(np.median(many) / np.median(alone)) - 1,
            "many in turns / one again",
            None,
        ),
        "cold_first_ms": (float(np.median(cold)), "ms", "under 20"),
        "cold_first_p99_ms": (float(np.quantile(cold, 0.99)), "ms", None),
        "p50_ms_many": (float(np.median(many)), "ms", None),
        "p50_ms_one": (float(np.median(single)), "ms", None),
    }
    answer.figures = {name: report.Figure(*figure) for name, figure in figures.items()}
    report.show(answer, as_json=given.json)


def _cache(catalog: Catalog, objects: LocalObjects) -> SnapshotCache:
    cache = SnapshotCache(catalog, objects, poll_s=1.0, capacity_bytes=16 << 30)
    cache.prepare()
    return cache


def _ms(cache: SnapshotCache, tenant: Tenant, query: NDArray[np.float32]) -> float:
    began = time.perf_counter()
    with cache.get(*tenant) as snapshot:
        snapshot.search(query, k=K, ef=EF, now=2_000.0)
    return 1e3 * (time.perf_counter() - began)


def _cold(
    catalog: Catalog, objects: LocalObjects, tenants: list[Tenant], queries: NDArray[np.float32]
) -> NDArray[np.float64]:
    cache = _cache(catalog, objects)
    found = np.array([_ms(cache, tenant, queries[at % len(queries)]) for at, tenant in enumerate(tenants)])
    cache.close()
    return found


def _tenants(count: int) -> tuple[Catalog, LocalObjects, list[Tenant]]:
    """Return as many tenants with an index of `ROWS` rows each; they are made the first time."""
    folder = indexes.CACHE / f"{count}-tenants-{indexes.FORMAT}"
    names = [f"tenant-{number}" for number in range(count)]
    if not (folder / "done").exists():
        catalog, objects, _ = indexes.empty(folder, tenants=names)
        publisher = Publisher(catalog, objects)
        epoch = acquire_lease(catalog, shard=0, owner="perf", ttl_s=86_400, now=time.time())
        assert epoch is not None
        shares = {"uniform": np.random.default_rng(0).random(ROWS)}
        for number, (_, generation_id) in enumerate(_generations(catalog, names)):
            vectors = np.concatenate(list(made_up.sample(ROWS, dimensions=indexes.DIMENSIONS, seed=number)))
            rows = indexes.rows_of(range(ROWS), shares=shares, prefix=f"doc{number}")
            publisher.publish(generation_id, epoch=epoch, shard=0, additions=rows, vectors=vectors)
        (folder / "done").touch()
    catalog, objects = Catalog.open(f"sqlite:///{folder / 'catalog.db'}"), LocalObjects(folder / "objects")
    return catalog, objects, _generations(catalog, names)


def _generations(catalog: Catalog, names: list[str]) -> list[Tenant]:
    tenants = [TenantId(name) for name in names]
    return [(tenant, list_collections(catalog, tenant=tenant, counted=False)[0].generation.id) for tenant in tenants]


if __name__ == "__main__":
    main()
