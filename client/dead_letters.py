"""What the client can do with dead documents: a part of `Penstock`."""

from collections.abc import Iterator, Mapping
from typing import Any

from .session import Session
from .transport import worded
from .wire import DeadSelection, Document, DocumentList, Dropped, Retried

LONGEST_RETRY_S = 600.0  # a hundred thousand documents are a minute of transactions


class DeadLetters(Session):
    """The methods of `Penstock` about documents that failed."""

    def dead_documents(
        self,
        collection: str,
        *,
        job_id: str | None = None,
        error_code: str | None = None,
        stage: str | None = None,
        filter: str | None = None,  # noqa: A002 the wire's own word
        after: str | None = None,
        limit: int = 100,
    ) -> DocumentList:
        """Return one page of the dead documents of which all of this holds; it may be short, or empty, before the last.

        ``filter``: conditions such as ``lang=en,year>2020``, or JSON.
        """
        asked = {"job_id": job_id, "error_code": error_code, "stage": stage, "filter": filter}
        params = {"state": "failed", **asked, "after": after, "limit": limit}
        return self._transport.get(self._path("collections", collection, "documents"), DocumentList, params=params)

    def all_dead_documents(self, collection: str, **asked: Any) -> Iterator[Document]:
        """Walk through the pages of `dead_documents`."""
        page = self.dead_documents(collection, limit=1000, **asked)
        yield from page.data
        while page.has_more:
            page = self.dead_documents(collection, limit=1000, after=page.last_id, **asked)
            yield from page.data

    def retry_documents(self, collection: str, **selection: Any) -> Retried:
        """Send dead documents on their way again, from the bytes that are stored: see `wire.DeadSelection`.

        Twice is harmless: what is on its way is not dead. When no answer comes, ask again.
        """
        path = self._path("collections", collection, "documents:retry")
        return self._transport.post(path, Retried, body=_body(selection), wait_s=LONGEST_RETRY_S)

    def drop_documents(self, collection: str, **selection: Any) -> Dropped:
        """Give dead documents up: see `wire.DeadSelection`. What is indexed of them stays."""
        path = self._path("collections", collection, "documents:drop")
        return self._transport.post(path, Dropped, body=_body(selection), wait_s=LONGEST_RETRY_S)


def _body(selection: Mapping[str, Any]) -> dict[str, Any]:
    with worded(DeadSelection):
        return DeadSelection(**selection).model_dump(exclude_defaults=True)
