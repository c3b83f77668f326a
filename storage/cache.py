"""Vectors that were paid for, in Redis: binary float32, one MGET and one pipeline per batch of texts.

Losing it costs money, never correctness: what is absent, damaged or unreachable is a miss. Every key has a time to
live, so that `volatile-lru` can evict vectors and never the queue's keys.
"""

import hashlib
import logging
import time
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .ids import TenantId

if TYPE_CHECKING:
    import redis
    from redis.client import Pipeline

log = logging.getLogger(__name__)

DIGEST_BYTES = 16
PAUSE_S = 5.0  # after a failure: each attempt may cost the client's whole timeout
_CHECKSUM_BYTES = 4
_SHARED = "shared"


def text_digest(text: str) -> bytes:
    """Return what a text is known by in the cache: blake2b-128."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


class EmbeddingCache:
    """Vectors by tenant, model, dimensions and text. Several threads may use it at once.

    Args:
        client: answers bytes (``decode_responses=False``).
        ttl_s: how long a vector stays after it was written or last found.
        shared: whether tenants find each other's vectors; timing then tells one that another has a text.
    """

    def __init__(
        self,
        client: "redis.Redis",
        *,
        ttl_s: float,
        shared: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._ttl_s = max(1, int(ttl_s))
        self._shared = shared
        self._clock = clock
        self._resume_at = -np.inf
        self._warned = False

    def get_many(
        self, tenant: TenantId, model: str, dimensions: int, digests: Sequence[bytes]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return float32[n, dimensions] and bool[n]: where it is False the row is zero and means nothing."""
        vectors = np.zeros((len(digests), dimensions), np.float32)
        found = np.zeros(len(digests), np.bool_)
        keys = self._keys(tenant, model, dimensions, digests)
        for row, value in enumerate(self._read(keys)):
            if value is not None and _is_whole(value, dimensions):
                vectors[row] = np.frombuffer(value, "<f4", dimensions)
                found[row] = True
        finite = np.isfinite(vectors).all(axis=1)
        vectors[~finite] = 0.0
        found &= finite
        self._keep([keys[row] for row in np.flatnonzero(found)])
        return vectors, found

    def put_many(
        self, tenant: TenantId, model: str, dimensions: int, digests: Sequence[bytes], vectors: NDArray[np.float32]
    ) -> None:
        """Remember float32[n, dimensions] for the texts of ``digests``."""
        data = np.ascontiguousarray(vectors, "<f4")
        if data.shape != (len(digests), dimensions):
            raise ValueError(f"{len(digests)} digests of {dimensions} dimensions, but vectors of shape {data.shape}")
        keys = self._keys(tenant, model, dimensions, digests)

        def add(pipeline: "Pipeline") -> None:
            for key, row in zip(keys, data, strict=True):
                pipeline.set(key, _sealed(row.tobytes()), ex=self._ttl_s)

        self._pipelined(add, keys)

    def _keep(self, keys: Sequence[str]) -> None:
        """Let found vectors live on."""

        def add(pipeline: "Pipeline") -> None:
            for key in keys:
                pipeline.expire(key, self._ttl_s)

        self._pipelined(add, keys)

    def _keys(self, tenant: TenantId, model: str, dimensions: int, digests: Sequence[bytes]) -> list[str]:
        # A tenant may be called "shared", so its scope must not look like the shared one.
        scope = _SHARED if self._shared else f"tenant/{tenant}"
        prefix = f"penstock:embedding:{scope}:{model}:{dimensions}:"
        return [prefix + digest.hex() for digest in digests]

    def _read(self, keys: Sequence[str]) -> list[bytes | None]:
        values = self._tried(lambda: self._client.mget(keys), keys)
        return [None] * len(keys) if values is None else cast("list[bytes | None]", values)

    def _pipelined(self, add: Callable[["Pipeline"], None], keys: Sequence[str]) -> None:
        def send() -> None:
            with self._client.pipeline(transaction=False) as pipeline:
                add(pipeline)
                pipeline.execute()

        self._tried(send, keys)

    def _tried(self, call: Callable[[], Any], keys: Sequence[str]) -> Any | None:
        """Return what ``call`` returns; None without keys, and while the server does not answer."""
        import redis  # noqa: PLC0415 not needed by whoever only hashes

        if not keys or self._clock() < self._resume_at:
            return None
        try:
            answer = call()
        except (redis.RedisError, OSError) as error:
            self._resume_at = self._clock() + PAUSE_S
            self._warn(error)
            return None
        self._warned = False
        return answer

    def _warn(self, error: Exception) -> None:
        if not self._warned:  # once per outage, not once per batch
            log.warning(
                "The embedding cache does not answer; texts are embedded again: %s",
                error,
                extra={"action": "cache_unavailable"},
            )
        self._warned = True


def _sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "little")


def _is_whole(value: bytes, dimensions: int) -> bool:
    body = memoryview(value)[:-_CHECKSUM_BYTES]
    return len(body) == 4 * dimensions and zlib.crc32(body) == int.from_bytes(value[-_CHECKSUM_BYTES:], "little")
