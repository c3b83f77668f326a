"""Examples: collections, and the figures of their indexes."""

from penstock.client import wire

from .shared import COLLECTION, Examples

EXAMPLES: Examples = {
    wire.NewCollection: {"name": "handbook", "model": "minilm", "chunking": {"strategy": "auto"}},
    wire.Collection: COLLECTION,
    wire.CollectionList: {"data": [COLLECTION]},
    wire.CollectionChange: {"keep_versions": 100, "keep_s": 2592000.0},
    wire.Fork: {"name": "handbook-draft"},
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
        "setback": {
            "count": 2,
            "given_up_at": 1767225500.0,
            "again_at": 1767225620.0,
            "error": "OSError in penstock.storage.publishing.graphs.save:88",
        },
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
}
