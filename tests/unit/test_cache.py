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
from penstock.storage.cache import PAUSE_S, EmbeddingCache, text_digest
from penstock.storage.ids import TenantId

ACME, OTHER = TenantId("acme"), TenantId("other")
DIMENSIONS = 256
MODEL = "hash-256"


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def client(server):
    with fakeredis.FakeRedis(server=server) as connected:
        yield connected


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def some(count: int) -> tuple[list[bytes], np.ndarray]:
    vectors = np.random.default_rng(count).normal(size=(count, DIMENSIONS)).astype(np.float32)
    return [text_digest(f"text {number}") for number in range(count)], vectors


def test_what_was_put_is_found_bit_for_bit(client):
    cache = EmbeddingCache(client, ttl_s=60)
    digests, vectors = some(5)
    cache.put_many(ACME, MODEL, DIMENSIONS, digests[:3], vectors[:3])

    found, known = cache.get_many(ACME, MODEL, DIMENSIONS, digests)

    assert known.tolist() == [True, True, True, False, False]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:3], vectors[:3])
    assert not found[3:].any()


def test_nothing_is_asked_for_nothing(client):
    found, known = EmbeddingCache(client, ttl_s=60).get_many(ACME, MODEL, DIMENSIONS, [])

    assert found.shape == (0, DIMENSIONS)
    assert known.shape == (0,)


@pytest.mark.parametrize(
    "other", [(OTHER, MODEL, DIMENSIONS), (ACME, "hash-257", DIMENSIONS), (TenantId("shared"), MODEL, DIMENSIONS)]
)
def test_vectors_of_another_tenant_or_model_are_not_found(client, other):
    cache = EmbeddingCache(client, ttl_s=60)
    digests, vectors = some(1)
    cache.put_many(ACME, MODEL, DIMENSIONS, digests, vectors)

    assert not cache.get_many(*other, digests)[1].any()


def test_tenants_share_vectors_only_where_the_setting_says_so(client):
    digests, vectors = some(2)
    EmbeddingCache(client, ttl_s=60, shared=True).put_many(ACME, MODEL, DIMENSIONS, digests, vectors)

    assert EmbeddingCache(client, ttl_s=60, shared=True).get_many(OTHER, MODEL, DIMENSIONS, digests)[1].all()
    assert not EmbeddingCache(client, ttl_s=60).get_many(OTHER, MODEL, DIMENSIONS, digests)[1].any()
    assert not EmbeddingCache(client, ttl_s=60).get_many(TenantId("shared"), MODEL, DIMENSIONS, digests)[1].any()


def test_every_vector_expires_and_being_found_keeps_it(client):
    cache = EmbeddingCache(client, ttl_s=60)
    digests, vectors = some(2)
    cache.put_many(ACME, MODEL, DIMENSIONS, digests, vectors)
    keys = client.keys("penstock:embedding:*")
    assert len(keys) == 2
    assert all(0 < client.ttl(key) <= 60 for key in keys)
    for key in keys:
        client.expire(key, 5)

    cache.get_many(ACME, MODEL, DIMENSIONS, digests[:1])

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
    cache = EmbeddingCache(client, ttl_s=60)
    digests, vectors = some(2)
    cache.put_many(ACME, MODEL, DIMENSIONS, digests, vectors)
    (key,) = client.keys(f"*{digests[0].hex()}")
    client.set(key, damage(client.get(key)))

    found, known = cache.get_many(ACME, MODEL, DIMENSIONS, digests)

    assert known.tolist() == [False, True]
    assert not found[0].any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_a_miss(client, value):
    cache = EmbeddingCache(client, ttl_s=60)
    digests, vectors = some(1)
    vectors[0, 3] = value
    cache.put_many(ACME, MODEL, DIMENSIONS, digests, vectors)

    found, known = cache.get_many(ACME, MODEL, DIMENSIONS, digests)

    assert not known[0]
    assert not found.any()


def test_vectors_of_another_shape_are_refused(client):
    digests, vectors = some(2)

    with pytest.raises(ValueError, match="shape"):
        EmbeddingCache(client, ttl_s=60).put_many(ACME, MODEL, DIMENSIONS, digests[:1], vectors)


def test_without_its_server_everything_is_a_miss_and_one_warning_is_written(client, server, caplog):
    clock = Clock()
    cache = EmbeddingCache(client, ttl_s=60, clock=clock)
    digests, vectors = some(3)
    cache.put_many(ACME, MODEL, DIMENSIONS, digests, vectors)
    server.connected = False

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert not cache.get_many(ACME, MODEL, DIMENSIONS, digests)[1].any()
            cache.put_many(ACME, MODEL, DIMENSIONS, digests, vectors)
            clock.now += PAUSE_S + 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]

    server.connected = True
    assert cache.get_many(ACME, MODEL, DIMENSIONS, digests)[1].all()


def test_a_server_that_failed_is_left_alone_for_a_while(client, monkeypatch):
    clock, calls = Clock(), []

    def fail(keys):
        calls.append(keys)
        raise redis.TimeoutError("slow")

    monkeypatch.setattr(client, "mget", fail)
    cache = EmbeddingCache(client, ttl_s=60, clock=clock)

    for _ in range(10):
        cache.get_many(ACME, MODEL, DIMENSIONS, some(1)[0])
    assert len(calls) == 1
    clock.now += PAUSE_S
    cache.get_many(ACME, MODEL, DIMENSIONS, some(1)[0])
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
    cache, embedder = EmbeddingCache(client, ttl_s=60), Counting()
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
    cache, old, new = EmbeddingCache(client, ttl_s=60), Counting(), Counting()
    new.card = replace(new.card, fingerprint="of the new weights")
    embed_with_cache(old, cache, ACME, ["a"])
    assert embed_with_cache(new, cache, ACME, ["a"])[1] == 0
    assert embed_with_cache(new, cache, ACME, ["a"])[1] == 1


def test_no_texts_need_nothing(client):
    embedder = Counting()

    vectors, hits, _ = embed_with_cache(embedder, EmbeddingCache(client, ttl_s=60), ACME, [])

    assert vectors.shape == (0, DIMENSIONS)
    assert (hits, embedder.asked) == (0, [])


def test_a_rejected_text_is_named_by_its_place_in_the_call(client):
    cache = EmbeddingCache(client, ttl_s=60)
    embed_with_cache(Counting(), cache, ACME, ["a", "b"])

    with pytest.raises(InputRejected) as rejected:
        embed_with_cache(Counting(refused="x"), cache, ACME, ["a", "c", "c", "b", "x", "d"])

    assert rejected.value.index == 4
