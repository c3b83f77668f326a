"""The cache of vectors against a fake server: what it finds, what it disbelieves, and what it does without one."""

import logging
from dataclasses import replace

import fakeredis
import numpy as np
import pytest
import redis

from penstock.pipeline.embedding import EmbeddingOptions, open_embedder
from penstock.pipeline.embedding.cached import embed_with_cache
from penstock.pipeline.errors import InputRejected
from penstock.storage.cache import CacheServer, EmbeddingCache
from penstock.storage.cache.server import PAUSE_S
from penstock.storage.ids import TenantId

from ..cached_texts import DIMENSIONS, MODEL, get, open_cache, put, some, wanted

ACME, OTHER = TenantId("acme"), TenantId("other")


@pytest.fixture
def client(fake_server):
    with fakeredis.FakeRedis(server=fake_server) as connected:
        yield connected


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_was_put_is_found_bit_for_bit(client):
    cache = open_cache(client)
    digests, vectors = some(5)
    put(cache, wanted(digests[:3]), vectors[:3])

    found, known = get(cache, wanted(digests))

    assert known.tolist() == [True, True, True, False, False]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:3], vectors[:3])
    assert not found[3:].any()


def test_nothing_is_asked_for_nothing(client):
    found, known = get(open_cache(client), wanted([]))

    assert found.shape == (0, DIMENSIONS)
    assert known.shape == (0,)


@pytest.mark.parametrize(
    "other", [{"tenant": OTHER}, {"model": "hash-257"}, {"tenant": TenantId("shared")}, {"dimensions": 257}]
)
def test_vectors_of_another_tenant_or_model_are_not_found(client, other):
    cache = open_cache(client)
    digests, vectors = some(1)
    put(cache, wanted(digests), vectors)

    assert not get(cache, wanted(digests, **other))[1].any()


def test_tenants_share_vectors_only_where_the_setting_says_so(client):
    digests, vectors = some(2)
    put(open_cache(client, shared=True), wanted(digests), vectors)

    assert get(open_cache(client, shared=True), wanted(digests, tenant=OTHER))[1].all()
    assert not get(open_cache(client), wanted(digests, tenant=OTHER))[1].any()
    assert not get(open_cache(client), wanted(digests, tenant=TenantId("shared")))[1].any()


def test_every_vector_expires_and_being_found_keeps_it(client):
    cache = open_cache(client)
    digests, vectors = some(2)
    put(cache, wanted(digests), vectors)
    keys = client.keys("penstock:embedding:*")
    assert len(keys) == 2
    assert all(0 < client.ttl(key) <= 60 for key in keys)
    for key in keys:
        client.expire(key, 5)

    get(cache, wanted(digests[:1]))

    assert sorted(client.ttl(key) for key in keys) == [5, 60]


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value[:-1],
        lambda value: value + b"\0",
        lambda value: b"",
        lambda value: b"abc",
        lambda value: bytes([value[0] ^ 1]) + value[1:],
        lambda value: value[:-1] + bytes([value[-1] ^ 0x80]),
    ],
    ids=["shorter", "longer", "empty", "only a checksum", "one bit of the vector", "one bit of the checksum"],
)
def test_a_damaged_entry_is_a_miss(client, damage):
    cache = open_cache(client)
    digests, vectors = some(2)
    put(cache, wanted(digests), vectors)
    (key,) = client.keys(f"*{digests[0].hex()}")
    client.set(key, damage(client.get(key)))

    found, known = get(cache, wanted(digests))

    assert known.tolist() == [False, True]
    assert not found[0].any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_a_miss(client, value):
    cache = open_cache(client)
    digests, vectors = some(1)
    vectors[0, 3] = value
    put(cache, wanted(digests), vectors)

    found, known = get(cache, wanted(digests))

    assert not known[0]
    assert not found.any()


def test_vectors_of_another_shape_are_refused(client):
    digests, vectors = some(2)

    with open_cache(client).look_up(wanted(digests)) as look, pytest.raises(ValueError, match="shape"):
        look.land(vectors[:1])


def test_without_its_server_everything_is_a_miss_and_one_warning_is_written(client, fake_server, caplog):
    clock = Clock()
    cache = EmbeddingCache(CacheServer(client, ttl_s=60, limit_bytes=1 << 30, clock=clock))
    digests, vectors = some(3)
    put(cache, wanted(digests), vectors)
    fake_server.connected = False

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert not get(cache, wanted(digests))[1].any()
            put(cache, wanted(digests), vectors)
            clock.now += PAUSE_S + 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]

    fake_server.connected = True
    assert get(cache, wanted(digests))[1].all()


def test_a_server_that_failed_is_left_alone_for_a_while(client, monkeypatch):
    clock, calls = Clock(), []

    def fail(keys):
        calls.append(keys)
        raise redis.TimeoutError("slow")

    monkeypatch.setattr(client, "mget", fail)
    cache = EmbeddingCache(CacheServer(client, ttl_s=60, limit_bytes=1 << 30, clock=clock))

    for _ in range(10):
        get(cache, wanted(some(1)[0]))
    assert len(calls) == 1
    clock.now += PAUSE_S
    get(cache, wanted(some(1)[0]))
    assert len(calls) == 2


class Counting:
    """An embedder that remembers what it was asked."""

    def __init__(self, refused: str | None = None) -> None:
        self._embedder = open_embedder(MODEL, EmbeddingOptions())
        self.card = self._embedder.card
        self.refused = refused
        self.asked: list[str] = []

    def embed_passages(self, texts):
        self.asked += texts
        if self.refused in texts:
            raise InputRejected("no", index=list(texts).index(self.refused))
        return self._embedder.embed_passages(texts)

    def __getattr__(self, name):
        return getattr(self._embedder, name)


def test_only_unknown_texts_are_embedded_and_each_once(client):
    cache, embedder = open_cache(client), Counting()
    first, hits, _ = embed_with_cache(embedder, cache, ACME, ["b", "a"])
    assert (hits, embedder.asked) == (0, ["b", "a"])

    vectors, hits, asked = embed_with_cache(embedder, cache, ACME, ["a", "c", "b", "c", "d", "a"])

    assert embedder.asked == ["b", "a", "c", "d"]
    assert hits == 3
    assert asked == [1, 4]
    np.testing.assert_array_equal(vectors, embedder._embedder.embed_passages(["a", "c", "b", "c", "d", "a"]))
    np.testing.assert_array_equal(first[1], vectors[0])
    assert embed_with_cache(embedder, cache, ACME, ["a", "b", "c", "d"])[1] == 4
    assert len(embedder.asked) == 4


def test_vectors_of_other_weights_under_the_same_name_are_not_taken(client):
    cache, old, new = open_cache(client), Counting(), Counting()
    new.card = replace(new.card, fingerprint="of the new weights")
    embed_with_cache(old, cache, ACME, ["a"])
    assert embed_with_cache(new, cache, ACME, ["a"])[1] == 0
    assert embed_with_cache(new, cache, ACME, ["a"])[1] == 1


def test_no_texts_need_nothing(client):
    embedder = Counting()

    vectors, hits, _ = embed_with_cache(embedder, open_cache(client), ACME, [])

    assert vectors.shape == (0, DIMENSIONS)
    assert (hits, embedder.asked) == (0, [])


def test_a_rejected_text_is_named_by_its_place_in_the_call(client):
    cache = open_cache(client)
    embed_with_cache(Counting(), cache, ACME, ["a", "b"])

    with pytest.raises(InputRejected) as rejected:
        embed_with_cache(Counting(refused="x"), cache, ACME, ["a", "c", "c", "b", "x", "d"])

    assert rejected.value.index == 4
