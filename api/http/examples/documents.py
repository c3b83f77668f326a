"""Examples: documents that come, leave, change or failed."""

from penstock.client import wire

from .shared import COLLECTION, DOCUMENT, FILTER, JOB, Examples

REFUSED = {
    "id": "doc_0192f1c0a5b4d2e3f4a5b6c7d9",
    "source": "manuals/lost.pdf",
    "code": "bytes_gone",
    "reason": "its submitted bytes are not stored any more: submit it again",
}
EXAMPLES: Examples = {
    wire.Estimate: {
        "model": "openai/text-embedding-3-small",
        "documents": 3,
        "unchanged": 1,
        "failed": 1,
        "unreadable": [{"source": "papers/scan.pdf", "code": "no_text", "reason": "It holds no text to search."}],
        "chunks": 40,
        "chunks_reused": 12,
        "cache_hits": 6,
        "repeated": 2,
        "embedded": 20,
        "tokens": 3600,
        "price_per_million_tokens": 0.02,
        "cost_usd": 7.2e-05,
        "duration_s": 1.5,
        "texts": None,
    },
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
    wire.Document: DOCUMENT,
    wire.DocumentList: {"data": [DOCUMENT], "has_more": False, "last_id": DOCUMENT["id"]},
    wire.DocumentUpdate: {"title": "Penstocks, revised", "metadata": {"lang": "fr", "draft": None}},
    wire.Updated: {"job": JOB, "changed": True, "version": 3},
    wire.Deletion: {"filter": FILTER, "dry_run": True},
    wire.Deleted: {
        "job": None,
        "deleted": 1,
        "already_deleted": 0,
        "not_found": 0,
        "changed": 0,
        "sample": [{"id": DOCUMENT["id"], "source": "manuals/penstock.md"}],
        "missing": [],
        "stayed": [],
        "ids": None,
    },
    wire.ChunkDeletion: {"chunk_ids": [17, 18], "min_token": COLLECTION["token"]},
    wire.ChunksDeleted: {"job": JOB, "deleted": 2, "not_found": 0},
    wire.DeadSelection: {"error_code": "worker_lost", "filter": FILTER, "dry_run": True},
    wire.Retried: {
        "job": JOB,
        "retried": 3,
        "refused": {"bytes_gone": 1},
        "sample": [{"id": DOCUMENT["id"], "source": "manuals/penstock.md"}],
        "refusals": [REFUSED],
        "ids": None,
    },
    wire.Dropped: {
        "dropped": 3,
        "refused": {"not_dead": 1},
        "sample": [{"id": DOCUMENT["id"], "source": "manuals/penstock.md"}],
        "refusals": [REFUSED | {"code": "not_dead", "reason": "its newest version, 2, is indexed"}],
        "ids": None,
    },
}
