"""What the client can do with the versions of a collection: a part of `Penstock`.

A version is named by its number, a tag, ``current``, or a date or time in ISO 8601 at which it was current.
"""

import time

from .errors import Busy
from .session import Session
from .transport import LONGEST_POLL_S
from .wire import Collection, Rollback, SnapshotDetails, SnapshotDiff, SnapshotList

LONGEST_FORK_S = 600.0  # a row is copied for each document before the answer


class Snapshots(Session):
    """The methods of `Penstock` about versions."""

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

    def roll_back(self, collection: str, snapshot: int | str) -> Rollback:
        """Ask for a rollback; ``wait_for_rollback`` waits for it. Twice is harmless."""
        return self._transport.post(self._snapshot(collection, snapshot, "rollback"), Rollback)

    def rollback(self, collection: str, rollback_id: str, *, wait_s: float = 0) -> Rollback:
        """Return a rollback as soon as it does not wait any more, at the latest after ``wait_s`` (at most 30)."""
        wait_s = min(wait_s, LONGEST_POLL_S)
        path = self._path("collections", collection, "rollbacks", rollback_id)
        return self._transport.get(path, Rollback, wait_s=wait_s)

    def wait_for_rollback(self, collection: str, rollback_id: str, *, timeout_s: float | None = None) -> Rollback:
        """Wait until a rollback is done or failed.

        Raises:
            Busy: it still waits after ``timeout_s``.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = LONGEST_POLL_S if deadline is None else deadline - time.monotonic()
            found = self.rollback(collection, rollback_id, wait_s=max(0.0, left_s))
            if found.state != "waiting":
                return found
            if deadline is not None and time.monotonic() >= deadline:
                raise Busy(f"rollback {rollback_id} still waits after {timeout_s:g} s", code="still_running")

    def fork(self, collection: str, name: str, *, snapshot: int | str = "current") -> Collection:
        """Make a collection that begins with a version of another one. No file is copied, but a row for each document.

        When no answer comes, look for the collection, or ask again: ``Conflict`` says of what it is a fork already.
        """
        path = self._snapshot(collection, snapshot, "fork")
        return self._transport.post(path, Collection, body={"name": name}, wait_s=LONGEST_FORK_S)

    def _snapshot(self, collection: str, snapshot: int | str, *parts: str) -> str:
        return self._path("collections", collection, "snapshots", str(snapshot), *parts)
