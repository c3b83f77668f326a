"""Texts and vectors for the tests of the cache, put and looked up without a model."""

from typing import Any

import numpy as np
import redis

from penstock.storage.cache import CacheServer, EmbeddingCache, Wanted, text_digest
from penstock.storage.ids import TenantId

ACME = TenantId("acme")
DIMENSIONS = 256
MODEL = "hash-256"
USD_PER_TOKEN = 0.5
TOKENS = 10


def open_cache(client: redis.Redis, *, ttl_s: float = 60, limit_bytes: int = 1 << 30, **options: Any) -> EmbeddingCache:
    """Return a cache; ``lease_s`` is the server's, other options are the cache's own."""
    lease_s = options.pop("lease_s", 10.0)
    return EmbeddingCache(CacheServer(client, ttl_s=ttl_s, limit_bytes=limit_bytes, lease_s=lease_s), **options)


def some(count: int, *, first: int = 0, dimensions: int = DIMENSIONS) -> tuple[list[bytes], np.ndarray]:
    """Return the digests of some texts, and a vector of each."""
    vectors = np.random.default_rng(first).normal(size=(count, dimensions)).astype(np.float32)
    return [text_digest(f"text {number}") for number in range(first, first + count)], vectors


def wanted(
    digests: list[bytes], *, tenant: TenantId = ACME, model: str = MODEL, dimensions: int = DIMENSIONS
) -> Wanted:
    """Return what looks these up, once each, of `TOKENS` tokens at `USD_PER_TOKEN`."""
    once = np.ones(len(digests), np.int64)
    return Wanted(tenant, model, dimensions, digests, once, TOKENS * once, USD_PER_TOKEN)


def put(cache: EmbeddingCache, asked: Wanted, vectors: np.ndarray) -> None:
    """Have the cache keep a vector of each text that it does not have."""
    with cache.look_up(asked) as look:
        look.land(vectors[look.mine])


def get(cache: EmbeddingCache, asked: Wanted) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors, and which of them were found."""
    with cache.look_up(asked) as look:
        return look.vectors, look.found
