"""Examples: recorded searches, judgements, and the check that is made with them."""

from penstock.client import wire

from .shared import FILTER, Examples

JUDGEMENT = {"query": "what leads water to a turbine?", "grade": 3, "source": "manuals/penstock.md"}
OLD = {
    "generation": "gen_0192f1bfe2a0b1c2d3e4f5a6b7",
    "model": "static",
    "dimensions": 256,
    "quantization": "none",
    "version": 4,
    "chunks": 12000,
    "latency": {"p50_ms": 0.9, "p95_ms": 1.4, "embedding_p50_ms": 0.2},
    "ndcg": 0.61,
    "unanswered": 0,
    "because": None,
}
NEW = OLD | {
    "generation": "gen_0192f1bfe2a0b1c2d3e4f5a6c9",
    "model": "minilm",
    "dimensions": 384,
    "version": 2,
    "latency": {"p50_ms": 7.1, "p95_ms": 9.8, "embedding_p50_ms": 6.3},
    "ndcg": 0.72,
}
EXAMPLES: Examples = {
    wire.ShadowQuery: {"queries": 200, "min_overlap": 0.4},
    wire.ShadowReport: {
        "passed": True,
        "reasons": [],
        "notes": ["40 searches came as vectors, which no other model can answer: they were left out"],
        "compared": "passages",
        "k": 10,
        "recorded": 120,
        "sampled": 0,
        "by_vector": 40,
        "overlap": 0.52,
        "least_overlap": 0.2,
        "rank_agreement": 0.49,
        "judged": 40,
        "old": OLD,
        "new": NEW,
        "thresholds": {
            "min_overlap": 0.4,
            "min_rank_agreement": None,
            "max_ndcg_drop": 0.02,
            "max_slowdown": None,
            "min_queries": 20,
        },
        "took_s": 2.3,
    },
    wire.RecordedQueryList: {
        "data": [
            {
                "text": "what leads water to a turbine?",
                "filter": FILTER,
                "times": 12,
                "first_at": 1767220000.0,
                "last_at": 1767225600.0,
            }
        ],
        "by_vector": 40,
        "recording": True,
    },
    wire.Forgotten: {"forgotten": 12},
    wire.NewJudgements: {"judgements": [JUDGEMENT], "replace": False},
    wire.JudgementList: {
        "data": [{"id": "9f" * 16, **JUDGEMENT, "document_id": None}],
        "has_more": False,
        "last_id": "9f" * 16,
    },
    wire.JudgementsLoaded: {"judgements": 40, "queries": 12, "unknown_count": 1, "unknown": [0]},
}
