"""Examples: the versions of a collection."""

from penstock.client import wire

from .shared import Examples

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
EXAMPLES: Examples = {
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
}
