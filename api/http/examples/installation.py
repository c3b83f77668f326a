"""Examples: tenants, the state of the installation, and errors."""

from penstock.client import wire

from .shared import JOB, Examples

TENANT = {
    "name": "acme",
    "created_at": 1767224000.0,
    "weight": 2.0,
    "max_backlog_documents": 500000,
    "max_backlog_bytes": None,
    "monthly_budget_usd": 50.0,
    "month_spent_usd": 12.5,
    "month_reserved_usd": 0.004,
    "paused_at": None,
    "record_queries": True,
    "waiting_documents": 1200,
    "waiting_bytes": 4815162,
}
CACHE_USE = {
    "hits": 90200,
    "misses": 11800,
    "damaged": 0,
    "saved_tokens": 16236000,
    "saved_usd": 0.32472,
    "vectors": 11800,
    "size_bytes": 26620800,
    "evicted": 0,
    "since": 1767220000.0,
}
USAGE_SUM = {
    "calls": 118,
    "failed_calls": 1,
    "tokens": 2124000,
    "cost_usd": 0.04248,
    "priced_usd": 0.04248,
    "unpriced_tokens": 0,
    "cache_hits": 90200,
    "saved_tokens": 16236000,
    "saved_usd": 0.32472,
}
EXAMPLES: Examples = {
    wire.Usage: {
        "by": ["day", "model"],
        "data": [USAGE_SUM | {"day": "2026-01-01", "model": "openai/text-embedding-3-small"}],
        "total": USAGE_SUM,
        "has_more": False,
    },
    wire.NewTenant: {"name": "acme"},
    wire.TenantChange: {"weight": 2.0, "max_backlog_documents": 500000},
    wire.Tenant: TENANT,
    wire.Pause: {"paused_at": 1767225600.0, "tenants": ["acme"]},
    wire.CacheUse: CACHE_USE,
    wire.TenantList: {"data": [TENANT]},
    wire.Status: {
        "version": "0.1.0",
        "now": 1767225611.0,
        "paused_at": None,
        "paused_tenants": ["acme"],
        "unwritten_shards": [],
        "absent_roles": [],
        "setbacks": [],
        "reembeddings": [],
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
        "cache": CACHE_USE | {"limit_bytes": 402653184},
        "limits": [
            {
                "model": "openai/text-embedding-3-small",
                "endpoint": "https://api.openai.com/v1",
                "requests_per_minute": 3000.0,
                "tokens_per_minute": 1000000.0,
                "percent": 50.0,
                "blocked_s": 0.0,
                "granted": 4120,
                "delayed": 310,
                "held": 44,
                "refused": 1,
            }
        ],
    },
    wire.Health: {"ok": True, "reasons": [], "degraded": ["redis: Connection refused"]},
    wire.ErrorAnswer: {
        "error": {
            "code": "invalid_request",
            "message": "unknown field 'documents[0].sorce': did you mean 'source'?",
            "param": "documents[0].sorce",
        }
    },
}
