"""What examples of several subjects show, and their type."""

from typing import Any

from pydantic import BaseModel

Examples = dict[type[BaseModel], dict[str, Any]]

JOB = {
    "id": "job_0192f1c0a5b3c1d2e3f4a5b6c7",
    "collection": "handbook",
    "state": "running",
    "created_at": 1767225600.0,
    "finished_at": None,
    "documents": {"embedding": 2, "indexed": 1},
    "chunks_total": 41,
    "chunks_embedded": 20,
    "chunks_indexed": 12,
    "chunks_expected": 41,
    "chunks_per_s": 8.5,
    "left_s": 2.5,
    "cache_hits": 3,
    "embedded_tokens": 3410,
    "cost_usd": 0.0,
    "chunks_reused": 0,
    "held_up": None,
    "unchanged": 0,
    "token": "gen_0192f1bfe2a0b1c2d3e4f5a6b7:4",
}
DOCUMENT = {
    "id": "doc_0192f1c0a5b4d2e3f4a5b6c7d8",
    "source": "manuals/penstock.md",
    "title": "Penstocks",
    "filename": "penstock.md",
    "media_type": "text/markdown",
    "size_bytes": 5120,
    "metadata": {"lang": "en", "tags": ["water", "turbines"]},
    "event_time": 1735689600.0,
    "expires_at": None,
    "version": 2,
    "state": "failed",
    "stage": "chunk",
    "error_code": "truncated",
    "error": "the file ends in the middle of a table",
    "attempts": 1,
    "first_attempt_at": 1767225602.0,
    "last_attempt_at": 1767225602.0,
    "former_death": None,
    "chunks": None,
    "created_at": 1767225600.0,
    "finished_at": 1767225602.5,
    "indexed_version": None,
    "searchable_version": 1,
    "searchable_at": 1767225000.0,
    "job_id": JOB["id"],
}
COLLECTION = {
    "id": "col_0192f1bfe29fa0b1c2d3e4f5a6",
    "name": "handbook",
    "created_at": 1767225000.0,
    "model": "minilm",
    "dimensions": 384,
    "metric": "cosine",
    "quantization": "none",
    "chunking": {"strategy": "recursive", "size_tokens": 200, "overlap_tokens": 20},
    "version": 4,
    "published_at": 1767225610.0,
    "chunks": 128,
    "documents": {"indexed": 11, "failed": 1},
    "token": "gen_0192f1bfe2a0b1c2d3e4f5a6b7:4",
}
FILTER = {
    "type": "and",
    "filters": [
        {"type": "eq", "key": "lang", "value": "en"},
        {"type": "in", "key": "tags", "value": ["water", "dams"]},
    ],
}
