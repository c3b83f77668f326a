"""What the client can ask: searches, figures of an index, the state of the installation. A part of `Penstock`."""

from collections.abc import Mapping, Sequence
from typing import Any

from .session import Session
from .transport import worded
from .wire import IndexStats, SearchQuery, SearchResult, Status, packed_vector


class Searches(Session):
    """The methods of `Penstock` that only ask."""

    def search(  # noqa: PLR0913  (the parts of a search are what they are)
        self,
        collection: str,
        query: str | None = None,
        *,
        vector: Sequence[float] | None = None,
        k: int = 10,
        filter: Mapping[str, Any] | str | None = None,  # noqa: A002 the wire's own word
        ef: int | None = None,
        min_token: str | None = None,
        version: int | None = None,
        tag: str | None = None,
        as_of: float | str | None = None,
        explain: bool = False,
    ) -> SearchResult:
        """Search by text or by vector. ``min_token`` of a job waits until its documents are searchable.

        By default the newest version is searched; ``version``, ``tag`` or ``as_of`` (seconds since 1970 or ISO 8601)
        choose another, and are refused with ``NotFound`` when that is not kept any more.
        """
        with worded(SearchQuery):
            asked = SearchQuery(
                query=query,
                vector=None if vector is None else packed_vector(vector),
                k=k,
                filter=dict(filter) if isinstance(filter, Mapping) else filter,
                ef=ef,
                min_token=min_token,
                version=version,
                tag=tag,
                as_of=as_of,
                explain=explain,
            )
        path = self._path("collections", collection, "search")
        return self._transport.ask(path, SearchResult, body=asked.model_dump(exclude_defaults=True))

    def index_stats(self, collection: str, *, probe: int = 0) -> IndexStats:
        """Return the figures of a collection's index. ``probe``: how many rows to search for, which takes seconds."""
        path = self._path("collections", collection, "index")
        return self._transport.get(path, IndexStats, params={"probe": probe})

    def status(self) -> Status:
        return self._transport.get("/v1/status", Status)
