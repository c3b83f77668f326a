"""Examples: a search, and what it finds."""

from penstock.client import wire

from .shared import COLLECTION, DOCUMENT, FILTER, Examples

EXAMPLES: Examples = {
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
                    "event_time": DOCUMENT["event_time"],
                    "ingested_at": DOCUMENT["created_at"],
                    "expires_at": DOCUMENT["expires_at"],
                },
            }
        ],
        "version": 4,
        "token": COLLECTION["token"],
        "took_ms": 6.4,
        "explain": None,
    },
}
