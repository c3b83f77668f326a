"""How many collections a tenant may have, counted where they are made."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from penstock.storage.catalog.collections import create_collection, delete_collection, list_collections
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.errors import AlreadyExists, LimitReached
from penstock.storage.ids import TenantId

TENANT = TenantId("default")


def make(catalog, name: str, *, tenant: TenantId = TENANT, most: int = 2) -> str:
    options = {"model": "hash", "dimensions": 384, "metric": "cosine", "chunking": {}, "shards": 1, "now": 1.0}
    return create_collection(catalog, tenant=tenant, name=name, max_collections=most, **options).name


def names(catalog, tenant: TenantId = TENANT) -> list[str]:
    return [info.name for info in list_collections(catalog, tenant=tenant)]


def test_one_collection_more_than_the_limit_is_refused_with_the_setting_that_moves_it(catalog):
    make(catalog, "a")
    make(catalog, "b")
    with pytest.raises(LimitReached, match=r"'default' has 2 collections.*limits\.max_collections_per_tenant"):
        make(catalog, "c")
    assert names(catalog) == ["a", "b"]
    delete_collection(catalog, tenant=TENANT, name="a")
    make(catalog, "c")
    assert names(catalog) == ["b", "c"]


def test_a_collection_that_is_there_is_told_so_even_at_the_limit(catalog):
    make(catalog, "a", most=1)
    with pytest.raises(AlreadyExists, match="'a'"):
        make(catalog, "a", most=1)


def test_the_collections_of_other_tenants_do_not_count(catalog):
    other = create_tenant(catalog, "other", now=1.0)
    make(catalog, "a", most=1)
    make(catalog, "a", tenant=other, most=1)
    assert names(catalog, other) == ["a"]


def test_of_many_that_race_for_the_last_places_only_as_many_pass_as_there_are(catalog):
    racers = 8
    start = Barrier(racers)

    def race(number: int) -> bool:
        start.wait(30)
        try:
            make(catalog, f"racer-{number}", most=3)
        except LimitReached:
            return False
        return True

    with ThreadPoolExecutor(racers) as pool:
        passed = list(pool.map(race, range(racers)))
    assert sum(passed) == 3
    assert len(names(catalog)) == 3
