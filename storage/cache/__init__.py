"""Vectors that were paid for, kept in Redis or Valkey: found again, counted, and never more than their limit.

Losing it costs money, never correctness: what is absent, damaged or unreachable is a miss. The server may be the
queue's, so its own ``maxmemory`` decides nothing here: the cache counts its bytes and forgets what was used least
lately. All keys of vectors have a time to live, so that a server with ``volatile-lru`` can evict them, and never the
queue's.
"""

from .entries import Wanted, text_digest
from .lookups import EmbeddingCache, Lookup
from .patience import Patience
from .server import CacheServer
from .use import CacheUse, read_total, read_use

__all__ = [
    "CacheServer",
    "CacheUse",
    "EmbeddingCache",
    "Lookup",
    "Patience",
    "Wanted",
    "read_total",
    "read_use",
    "text_digest",
]
