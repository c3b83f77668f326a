"""The generations of a collection that may answer a vector."""

import sqlalchemy as sa

from penstock.storage.catalog.collections import create_collection
from penstock.storage.catalog.generations import generations_of, up_to_date_generations
from penstock.storage.catalog.tables import generations, manifests, reembeddings
from penstock.storage.ids import CollectionId, TenantId

TENANT = TenantId("default")


def make(catalog) -> CollectionId:
    options = {"model": "hash", "dimensions": 384, "metric": "cosine", "chunking": {}, "shards": 1, "now": 1.0}
    return create_collection(catalog, tenant=TENANT, name="docs", **options).id


def test_a_generation_that_served_before_counts_while_it_follows_closely(catalog):
    """Else a vector of the former model would find what was deleted since."""
    collection = make(catalog)
    with catalog.write() as connection:
        active = connection.execute(sa.select(generations)).mappings().one()
        former = {**active, "id": "gen_former", "state": "retired", "manifest": "m"}
        connection.execute(sa.insert(generations).values(former))
        connection.execute(sa.update(generations).where(generations.c.id == active["id"]).values(version=3))
        sides = {"source_id": active["id"], "target_id": "gen_former", "base_version": 3, "keep_s": 1.0}
        owner = {"tenant_id": TENANT, "collection_id": collection, "created_at": 1.0}
        connection.execute(sa.insert(reembeddings).values(id="reemb_1", state="switched", **sides, **owner))
        base = {"generation_id": active["id"], "version": 2, "tenant_id": TENANT, "name": "m2", "operation": "publish"}
        numbers = {"writer_epoch": 1, "segment_count": 1, "live_chunks": 1, "size_bytes": 1, "created_at": 1.0}
        connection.execute(sa.insert(manifests).values(**base, **numbers, followed_at=1_000.0))

    def counts(*, now: float = 1_000.0, **values) -> bool:
        with catalog.write() as connection:
            connection.execute(sa.update(reembeddings).values(values or {"base_version": 3}))
        found = up_to_date_generations(catalog, collection, tenant=TENANT, now=now)
        assert found[0].id == active["id"]
        return "gen_former" in [one.id for one in found]

    assert counts()
    assert counts(base_version=2, now=1_030.0)
    assert not counts(base_version=2, now=1_100.0)
    assert not counts(base_version=1)  # so old that its version is not kept
    assert not counts(base_version=3, paused_at=5.0)
    assert not counts(paused_at=None, state="done")
    assert [one.id for one in generations_of(catalog, collection, tenant=TenantId("rival"))] == []
