"""What the cache did for a tenant, and for all of them. Counts are the server's: losing it begins them anew."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import Unavailable
from ..ids import TenantId
from .entries import scope_of

if TYPE_CHECKING:
    import redis

USE = "penstock:embedding-use"


@dataclass(frozen=True)
class CacheUse:
    """``hits`` and ``misses``: texts that were looked up. ``damaged`` entries were among the misses.

    ``saved_tokens``, ``saved_usd``: of the hits, at the price of the model when they were found. ``size_bytes``: memory
    of the ``vectors`` that are kept; ``evicted`` ones went because of the limit. ``since``: when counting began, None
    before the first look-up.
    """

    hits: int = 0
    misses: int = 0
    damaged: int = 0
    saved_tokens: int = 0
    saved_usd: float = 0.0
    vectors: int = 0
    size_bytes: int = 0
    evicted: int = 0
    since: float | None = None


def read_use(client: "redis.Redis", tenant: TenantId) -> CacheUse:
    """Return what the cache did for one tenant. Vectors that tenants share are nobody's: see `read_total`.

    Raises:
        Unavailable: the server does not answer.
    """
    return _read(client, f"{USE}:{scope_of(tenant)}")


def read_total(client: "redis.Redis") -> CacheUse:
    """Return what the cache did for all tenants. Raises Unavailable as `read_use`."""
    return _read(client, USE)


def _read(client: "redis.Redis", key: str) -> CacheUse:
    import redis  # noqa: PLC0415 as in server.py

    try:
        found = client.hgetall(key)
    except (redis.RedisError, OSError) as error:
        raise Unavailable("the cache's server does not answer, so nobody knows its counts: ask again later") from error
    return _use_of({_text(name): float(value) for name, value in found.items()})


def _use_of(found: Mapping[str, float]) -> CacheUse:
    def whole(name: str) -> int:
        return max(0, int(found.get(name, 0)))

    return CacheUse(
        hits=whole("hits"),
        misses=whole("misses"),
        damaged=whole("damaged"),
        saved_tokens=whole("saved_tokens"),
        saved_usd=found.get("saved_usd", 0.0),
        vectors=whole("vectors"),
        size_bytes=whole("size_bytes"),
        evicted=whole("evicted"),
        since=found.get("since"),
    )


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
