"""What the client can do with the versions of a collection: a part of `Penstock`.

A version is named by its number, a tag, ``current``, or a date or time in ISO 8601 at which it was current.
"""

from .transport import Transport
from .wire import Collection, SnapshotDetails, SnapshotDiff, SnapshotList


class Snapshots:
    """The methods of `Penstock` about versions."""

    _transport: Transport

    def snapshots(self, collection: str, *, before: int | None = None, limit: int = 100) -> SnapshotList:
        """Return one page of the versions that are kept, the newest first."""
        params = {"before": before, "limit": limit}
        return self._transport.get(self._path("collections", collection, "snapshots"), SnapshotList, params=params)

    def snapshot(self, collection: str, snapshot: int | str) -> SnapshotDetails:
        return self._transport.get(self._snapshot(collection, snapshot), SnapshotDetails)

    def diff(
        self,
        collection: str,
        before: int | str,
        after: int | str = "current",
        *,
        after_id: str | None = None,
        limit: int = 1000,
    ) -> SnapshotDiff:
        """Return which documents ``after`` serves otherwise than ``before``; a page begins behind ``after_id``."""
        params = {"to": str(after), "after": after_id, "limit": limit}
        return self._transport.get(self._snapshot(collection, before, "diff"), SnapshotDiff, params=params)

    def tag(self, collection: str, snapshot: int | str, name: str, *, move: bool = False) -> SnapshotDetails:
        """Give a version a name, which keeps it; ``move`` takes the name from another version."""
        path = self._snapshot(collection, snapshot, "tags", name)
        return self._transport.put(path, SnapshotDetails, params={"move": "true" if move else None})

    def untag(self, collection: str, name: str) -> None:
        """Remove a tag; whether its version stays is then up to retention."""
        self._transport.delete(self._snapshot(collection, name, "tags", name))

    def fork(self, collection: str, name: str, *, snapshot: int | str = "current") -> Collection:
        """Make a collection that begins with a version of another one. No file is copied."""
        return self._transport.post(self._snapshot(collection, snapshot, "fork"), Collection, body={"name": name})

    def _path(self, *parts: str) -> str:
        raise NotImplementedError

    def _snapshot(self, collection: str, snapshot: int | str, *parts: str) -> str:
        return self._path("collections", collection, "snapshots", str(snapshot), *parts)
