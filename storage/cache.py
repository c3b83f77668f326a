"""Vectors that were paid for, in Redis: binary float32, one MGET and one pipeline per batch of texts.

Losing it costs money, never correctness: what is absent, damaged or unreachable is a miss. Every key has a time to
live, so that `volatile-lru` can evict vectors and never the queue's keys.
"""

import hashlib
import logging
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .ids import TenantId

if TYPE_CHECKING:
    import redis

log = logging.getLogger(__name__)

DIGEST_BYTES = 16
_CHECKSUM_BYTES = 4
_SHARED = "shared"


def text_digest(text: str) -> bytes:
    """Return what a text is known by in the cache: blake2b-128."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


class EmbeddingCache:
    """Vectors by tenant, model, dimensions and text.

    Args:
        client: answers bytes (``decode_responses=False``).
        ttl_s: how long a vector stays after it was written.
        shared: whether tenants find each other's vectors; timing then tells one that another has a text.
    """

    def __init__(self, client: "redis.Redis", *, ttl_s: float, shared: bool = False) -> None:
        self._client = client
        self._ttl_s = max(1, int(ttl_s))
        self._shared = shared
        self._warned = False

    def get_many(
        self, tenant: TenantId, model: str, dimensions: int, digests: Sequence[bytes]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return float32[n, dimensions] and bool[n]: where it is False the row means nothing."""
        vectors = np.zeros((len(digests), dimensions), np.float32)
        found = np.zeros(len(digests), np.bool_)
        values = self._read(self._keys(tenant, model, dimensions, digests)) if digests else []
        for row, value in enumerate(values):
            if value is not None and len(value) == 4 * dimensions + _CHECKSUM_BYTES and _is_whole(value):
                vectors[row] = np.frombuffer(value, "<f4", dimensions)
                found[row] = True
        return vectors, found

    def put_many(
        self, tenant: TenantId, model: str, dimensions: int, digests: Sequence[bytes], vectors: NDArray[np.float32]
    ) -> None:
        """Remember float32[n, dimensions] for the texts of ``digests``."""
        keys = self._keys(tenant, model, dimensions, digests)
        data = np.ascontiguousarray(vectors, "<f4")
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for key, row in zip(keys, data, strict=True):
                    body = row.tobytes()
                    pipeline.set(key, body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "little"), ex=self._ttl_s)
                pipeline.execute()
        except _redis_errors() as error:
            self._warn(error)

    def _keys(self, tenant: TenantId, model: str, dimensions: int, digests: Sequence[bytes]) -> list[str]:
        scope = _SHARED if self._shared else f"tenant/{tenant}"
        prefix = f"penstock:embedding:{scope}:{model}:{dimensions}:"
        return [prefix + digest.hex() for digest in digests]

    def _read(self, keys: Sequence[str]) -> list[bytes | None]:
        try:
            values = cast("list[bytes | None]", self._client.mget(keys))
        except _redis_errors() as error:
            self._warn(error)
            return [None] * len(keys)
        self._warned = False
        return values

    def _warn(self, error: Exception) -> None:
        if not self._warned:  # once per outage, not once per batch
            log.warning("The embedding cache does not answer; texts are embedded again: %s", error)
        self._warned = True


def _is_whole(value: bytes) -> bool:
    body = memoryview(value)[:-_CHECKSUM_BYTES]
    return zlib.crc32(body) == int.from_bytes(value[-_CHECKSUM_BYTES:], "little")


def _redis_errors() -> tuple[type[Exception], ...]:
    import redis  # noqa: PLC0415 not needed by whoever only hashes

    errors: Any = redis.RedisError
    return (errors, OSError)
