"""The cache of vectors against a real server."""

import numpy as np
import redis

from penstock.storage.cache import EmbeddingCache, text_digest
from penstock.storage.ids import TenantId

from ..valkey_server import ValkeyServer

ACME = TenantId("acme")


def test_vectors_survive_the_way_through_a_real_server(valkey_server: ValkeyServer) -> None:
    digests = [text_digest(f"text {number}") for number in range(300)]
    vectors = np.random.default_rng(1).normal(size=(300, 384)).astype(np.float32)
    with redis.Redis.from_url(valkey_server.url) as client:
        cache = EmbeddingCache(client, ttl_s=60)
        cache.put_many(ACME, "minilm", 384, digests, vectors)

        found, known = cache.get_many(ACME, "minilm", 384, [*digests, text_digest("another")])

        assert known.tolist() == [True] * 300 + [False]
        np.testing.assert_array_equal(found[:300], vectors)
        assert all(0 < client.ttl(key) <= 60 for key in client.scan_iter("penstock:embedding:*"))
        client.flushall()
        assert not cache.get_many(ACME, "minilm", 384, digests)[1].any()


def test_a_server_that_is_not_there_costs_a_miss_and_no_error(tmp_path) -> None:
    with redis.Redis.from_url(f"unix://{tmp_path}/nobody.sock") as client:
        cache = EmbeddingCache(client, ttl_s=60)
        cache.put_many(ACME, "minilm", 2, [text_digest("a")], np.ones((1, 2), np.float32))

        assert not cache.get_many(ACME, "minilm", 2, [text_digest("a")])[1].any()
