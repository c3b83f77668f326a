"""One example of every request and answer, shown in the OpenAPI description. A test reads each as its type."""

from typing import Any

from pydantic import BaseModel

from penstock.client import wire

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
DELIVERY = {
    "id": "msg_0192f1c0a5b6f4a5b6c7d8e9f0",
    "job_id": JOB["id"],
    "url": "https://example.com/hooks/penstock",
    "state": "waiting",
    "attempts": 1,
    "next_attempt_at": 1767225660.0,
    "status": 503,
    "error": "it answered 503",
    "created_at": 1767225602.5,
    "finished_at": None,
}
TENANT = {"name": "acme", "created_at": 1767224000.0}
FILTER = {
    "type": "and",
    "filters": [
        {"type": "eq", "key": "lang", "value": "en"},
        {"type": "in", "key": "tags", "value": ["water", "dams"]},
    ],
}

SNAPSHOT = {
    "version": 4,
    "operation": "publish",
    "origin": None,
    "current": True,
    "created_at": 1767225600.0,
    "followed_at": None,
    "segments": 1,
    "chunks": 12,
    "size_bytes": 40960,
    "tags": ["release-1"],
    "token": "gen_0192f1bfe2a0b1c2d3e4f5a6b7:4",
}
SEGMENT = {"id": "seg_0192f1c0a5b7d2e3f4a5b6c7d8", "kind": "flat", "chunks": 12, "deleted": 0, "size_bytes": 40960}
CHANGE = {
    "id": "doc_0192f1c0a5b4d2e3f4a5b6c7d8",
    "source": "manuals/penstock.md",
    "title": "Penstocks",
    "change": "changed",
    "version_before": 1,
    "version_after": 2,
    "chunks_before": 3,
    "chunks_after": 4,
}
REFUSED = {
    "id": "doc_0192f1c0a5b4d2e3f4a5b6c7d9",
    "source": "manuals/lost.pdf",
    "code": "bytes_gone",
    "reason": "its submitted bytes are not stored any more: submit it again",
}
EXAMPLES: dict[type[BaseModel], dict[str, Any]] = {
    wire.NewTenant: {"name": "acme"},
    wire.Tenant: TENANT,
    wire.TenantList: {"data": [TENANT]},
    wire.NewCollection: {"name": "handbook", "model": "minilm", "chunking": {"strategy": "auto"}},
    wire.Collection: COLLECTION,
    wire.CollectionList: {"data": [COLLECTION]},
    wire.Submission: {
        "documents": [
            {"source": "notes/1", "text": "A penstock leads water to a turbine.", "metadata": {"lang": "en"}},
            {"source": "manuals/a.pdf", "filename": "a.pdf", "content_base64": "JVBERi0xLjcK", "title": "Manual A"},
        ]
    },
    wire.UploadForm: {"documents": [{"source": "manuals/a.pdf", "metadata": {"lang": "en"}}]},
    wire.Submitted: {"job": JOB, "accepted": 3, "replaced": 0, "unchanged": 0, "pending": 3, "token": None},
    wire.KnownQuery: {"documents": [{"source": "notes/1", "content_hash": "9f" * 32}]},
    wire.Known: {"known": ["notes/1"]},
    wire.Deletion: {"filter": FILTER, "dry_run": True},
    wire.Deleted: {
        "job": None,
        "deleted": 1,
        "already_deleted": 0,
        "not_found": 0,
        "sample": [{"id": DOCUMENT["id"], "source": "manuals/penstock.md"}],
        "missing": [],
    },
    wire.DeadSelection: {"error_code": "worker_lost", "filter": FILTER, "dry_run": True},
    wire.Retried: {
        "job": JOB,
        "retried": 3,
        "refused": {"bytes_gone": 1},
        "sample": [{"id": DOCUMENT["id"], "source": "manuals/penstock.md"}],
        "refusals": [REFUSED],
    },
    wire.Dropped: {
        "dropped": 3,
        "refused": {"not_dead": 1},
        "sample": [{"id": DOCUMENT["id"], "source": "manuals/penstock.md"}],
        "refusals": [REFUSED | {"code": "not_dead", "reason": "its newest version, 2, is indexed"}],
    },
    wire.DocumentUpdate: {"title": "Penstocks, revised", "metadata": {"lang": "fr", "draft": None}},
    wire.Updated: {"job": JOB, "changed": True, "version": 3},
    wire.ChunkDeletion: {"chunk_ids": [17, 18], "min_token": COLLECTION["token"]},
    wire.ChunksDeleted: {"job": JOB, "deleted": 2, "not_found": 0},
    wire.Document: DOCUMENT,
    wire.DocumentList: {"data": [DOCUMENT], "has_more": False, "last_id": DOCUMENT["id"]},
    wire.Job: JOB,
    wire.Delivery: DELIVERY,
    wire.DeliveryList: {"data": [DELIVERY], "has_more": False, "last_id": DELIVERY["id"]},
    wire.WebhookSecret: {
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
        "created_at": 1767225600.0,
        "former_until": None,
    },
    wire.JobList: {"data": [JOB], "has_more": False, "last_id": JOB["id"]},
    wire.SearchQuery: {"query": "what leads water to a turbine?", "k": 3, "filter": FILTER},
    wire.SearchResult: {
        "hits": [
            {
                "chunk_id": 17,
                "score": 0.8312,
                "text": "A penstock leads water to a turbine.",
                "start": 0,
                "end": 36,
                "page": None,
                "heading": "Intake",
                "document": {
                    "id": DOCUMENT["id"],
                    "source": "manuals/penstock.md",
                    "title": "Penstocks",
                    "metadata": {"lang": "en", "tags": ["water", "turbines"]},
                    "version": 2,
                    "media_type": "text/markdown",
                },
            }
        ],
        "version": 4,
        "token": COLLECTION["token"],
        "took_ms": 6.4,
        "explain": None,
    },
    wire.IndexStats: {
        "collection": "handbook",
        "model": "minilm",
        "dimensions": 384,
        "metric": "cosine",
        "generation": "gen_0192f1bfe2a0b1c2d3e4f5a6b7",
        "version": 4,
        "published_at": 1767225610.0,
        "rows": 12040,
        "live": 12000,
        "deleted": 40,
        "size_bytes": 26006400,
        "bytes_per_vector": 2167.2,
        "graph_insertions": 12000,
        "graph_insertions_per_vector": 1.0,
        "merges": [
            {
                "stage": "merge",
                "state": "running",
                "segments": 8,
                "attempts": 1,
                "created_at": 1767225605.0,
                "error": None,
            }
        ],
        "segments": [
            {
                "id": "seg_0192f1c0a5b5e3f4a5b6c7d8e9",
                "kind": "graph",
                "rows": 12000,
                "live": 11960,
                "deleted": 40,
                "size_bytes": 25920000,
                "bytes_per_vector": 2160.0,
                "graph_insertions": 12000,
            }
        ],
        "probe": {
            "wanted": 50,
            "asked": 50,
            "k": 10,
            "ef": 64,
            "self_recall": 1.0,
            "recall": 0.998,
            "took_s": 0.31,
        },
    },
    wire.Status: {
        "version": "0.1.0",
        "now": 1767225611.0,
        "queued_documents": 0,
        "oldest_queued_s": None,
        "stages": {"embed": {"ready": 3, "sent": 2, "running": 1, "dead": 0, "oldest_s": 1.4}},
        "roles": [
            {
                "role": "embed",
                "host": "node-1",
                "pid": 4211,
                "started_at": 1767220000.0,
                "seen_at": 1767225610.0,
                "progress_at": 1767225609.5,
                "doing": "embedding 128 chunks",
                "still_s": None,
            }
        ],
        "jobs": [JOB | {"tenant": "acme"}],
        "collections": [
            {
                "tenant": "acme",
                "name": "handbook",
                "model": "minilm",
                "version": 4,
                "chunks": 128,
                "documents": {"indexed": 11, "failed": 1},
            }
        ],
    },
    wire.Health: {"ok": True, "reasons": [], "degraded": ["the queue's server does not answer"]},
    wire.ErrorAnswer: {
        "error": {
            "code": "invalid_request",
            "message": "unknown field 'documents[0].sorce': did you mean 'source'?",
            "param": "documents[0].sorce",
        }
    },
    wire.Rollback: {
        "id": "batch_0192f1c0a5b8d2e3f4a5b6c7d8",
        "version": 3,
        "state": "done",
        "error": None,
        "published": 5,
        "created_at": 1767225600.0,
        "finished_at": 1767225601.0,
        "token": "gen_0192f1bfe2a0b1c2d3e4f5a6b7:5",
    },
    wire.CollectionChange: {"keep_versions": 100, "keep_s": 2592000.0},
    wire.Fork: {"name": "handbook-draft"},
    wire.SnapshotList: {"data": [SNAPSHOT], "has_more": False, "last_version": 4},
    wire.SnapshotDetails: SNAPSHOT | {"parts": [SEGMENT]},
    wire.SnapshotDiff: {
        "before": 3,
        "after": 4,
        "added": 0,
        "changed": 1,
        "removed": 0,
        "documents": [CHANGE],
        "has_more": False,
        "last_id": CHANGE["id"],
    },
}
