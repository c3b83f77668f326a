"""What the client can do with recorded searches and judgements: a part of `Penstock`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .session import Session
from .transport import worded
from .wire import (
    Forgotten,
    Judgement,
    JudgementList,
    JudgementsLoaded,
    NewJudgements,
    RecordedQueryList,
)


class Questions(Session):
    """The methods of `Penstock` about what a re-embedding is judged by."""

    def recorded_queries(self, collection: str, *, limit: int = 100) -> RecordedQueryList:
        """Return the newest searches that were recorded."""
        return self._transport.get(self._queries(collection), RecordedQueryList, params={"limit": limit})

    def forget_queries(self, collection: str) -> Forgotten:
        """Forget the recorded searches of a collection; more may be recorded from then on."""
        return self._transport.change("DELETE", self._queries(collection), Forgotten)

    def load_judgements(
        self, collection: str, judgements: Iterable[Mapping[str, Any]], *, replace: bool = False
    ) -> JudgementsLoaded:
        """Say how well documents answer questions: see `wire.NewJudgement`. All are kept or none; twice is harmless.

        ``replace``: forget those that are there.
        """
        with worded(NewJudgements):
            asked = NewJudgements.model_validate({"judgements": [*judgements], "replace": replace})
        body = asked.model_dump(exclude_none=True)
        return self._transport.change("POST", self._judgements(collection), JudgementsLoaded, body=body)

    def judgements(self, collection: str, *, after: str | None = None, limit: int = 100) -> JudgementList:
        """Return one page of judgements, in an order of no meaning."""
        params = {"after": after, "limit": limit}
        return self._transport.get(self._judgements(collection), JudgementList, params=params)

    def all_judgements(self, collection: str) -> Iterator[Judgement]:
        """Walk through the pages of `judgements`."""
        page = self.judgements(collection, limit=1000)
        yield from page.data
        while page.has_more:
            page = self.judgements(collection, limit=1000, after=page.last_id)
            yield from page.data

    def clear_judgements(self, collection: str) -> Forgotten:
        """Forget the judgements of a collection."""
        return self._transport.change("DELETE", self._judgements(collection), Forgotten)

    def _queries(self, collection: str) -> str:
        return self._path("collections", collection, "queries")

    def _judgements(self, collection: str) -> str:
        return self._path("collections", collection, "judgements")
