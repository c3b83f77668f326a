"""What the client can do with collections: a part of `Penstock`."""

from .session import Session
from .transport import worded
from .wire import (
    Chunking,
    Collection,
    CollectionChange,
    CollectionList,
    Metric,
    NewCollection,
    Quantization,
)


class Collections(Session):
    """The methods of `Penstock` about collections."""

    def collections(self) -> list[Collection]:
        return self._transport.get(self._path("collections"), CollectionList).data

    def collection(self, name: str) -> Collection:
        return self._transport.get(self._path("collections", name), Collection)

    def create_collection(
        self,
        name: str,
        *,
        model: str | None = None,
        dimensions: int | None = None,
        chunking: Chunking | None = None,
        metric: Metric | None = None,
        quantization: Quantization | None = None,
    ) -> Collection:
        """Make a collection, or return the one of that name when it is configured so; else ``Conflict``.

        ``dimensions``: fewer than the model makes, of a Matryoshka model.
        """
        with worded(NewCollection):
            new = NewCollection(
                name=name,
                model=model,
                dimensions=dimensions,
                chunking=chunking,
                metric=metric,
                quantization=quantization,
            )
        return self._transport.post(self._path("collections"), Collection, body=new.model_dump(exclude_none=True))

    def delete_collection(self, name: str) -> None:
        self._transport.delete(self._path("collections", name))

    def change_retention(self, collection: str, **values: float | None) -> Collection:
        """Set ``keep_versions`` or ``keep_s`` of a collection; None: as the server has it for all collections."""
        with worded(CollectionChange):
            asked = CollectionChange.model_validate(values)
        body = asked.model_dump(include=asked.model_fields_set)
        return self._transport.change("PATCH", self._path("collections", collection), Collection, body=body)
