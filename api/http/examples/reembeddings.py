"""Examples: a collection that is embedded again."""

from penstock.client import wire

from .shared import Examples

CHUNKING = {"strategy": "recursive", "size_tokens": 220, "overlap_tokens": 28}


def _side(number: int, **told: object) -> dict[str, object]:
    return {"id": f"gen_0192f1bfe2a0b1c2d3e4f5a6b{number}", "quantization": "none", "chunking": CHUNKING, **told}


EXAMPLES: Examples = {
    wire.NewReembedding: {"model": "minilm", "keep_s": 604800.0},
    wire.ReembeddingChange: {"budget_usd": 8.0},
    wire.Switch: {"force": False},
    wire.Reembedding: {
        "id": "reemb_0192f1c0a5b4d2e3f4a5b6c7d8",
        "state": "copying",
        "serving": _side(7, model="static", dimensions=256, version=42, chunks=12000),
        "other": _side(8, model="minilm", dimensions=384, version=5, chunks=4096),
        "recuts": False,
        "caught_up": False,
        "chunks_total": 12000,
        "chunks_copied": 4096,
        "documents_copied": 1210,
        "cache_hits": 0,
        "chunks_reused": 0,
        "embedded_tokens": 700416,
        "cost_usd": 0.0,
        "budget_usd": None,
        "report": None,
        "paused_at": None,
        "error": None,
        "held_up": None,
        "created_at": 1767225600.0,
        "switched_at": None,
        "kept_until": None,
        "finished_at": None,
    },
}
