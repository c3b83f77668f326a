"""What has to happen for a collection to equal a folder: found out before anything is changed.

Only what is below the folder's own prefix is looked at. What cannot be read now is never deleted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.client import NotFound

from .folders import Found, Skipped, Walk, below
from .uploading import Sending, find_new

if TYPE_CHECKING:
    from penstock.client import Penstock

FEW = 10  # documents that may be deleted without asking, where the folder has files
SHARE = 0.2  # of the documents below the prefix, likewise


@dataclass(frozen=True)
class SyncPlan:
    """``add`` and ``update`` are sent, then the sources of ``delete`` are deleted.

    ``versions``: of all documents below the prefix, by source, as they were compared; ``spared``: those whose file
    cannot be read now.
    """

    add: list[Found] = field(default_factory=list)
    update: list[Found] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    spared: list[str] = field(default_factory=list)
    unchanged: int = 0
    versions: dict[str, int] = field(default_factory=dict)

    @property
    def here(self) -> int:
        """How many documents there are below the prefix."""
        return len(self.versions)

    @property
    def sent(self) -> list[Found]:
        return [*self.add, *self.update]

    @property
    def deletes_much(self) -> bool:
        """Whether that many documents would go that somebody should have a look: the folder may be the wrong one.

        From an empty folder one is many: what is mounted there may be away.
        """
        nothing_there = not (self.add or self.update or self.unchanged or self.spared)
        return bool(self.delete) and (nothing_there or len(self.delete) > max(FEW, SHARE * self.here))

    def as_plain(self) -> dict[str, Any]:
        return {
            "add": [file.source for file in self.add],
            "update": [file.source for file in self.update],
            "delete": self.delete,
            "unchanged": self.unchanged,
            "spared": self.spared,
        }


def plan_sync(
    client: "Penstock",
    collection: str,
    walk: Walk,
    *,
    begin: str,
    compared: bool,
    sending: Sending,
    on_progress: Callable[[], None],
) -> SyncPlan:
    """Compare the folder with what is in the collection below ``begin``. Changes nothing.

    Args:
        compared: by content; else what is known is sent too, for the server to compare what is said of it.

    Raises:
        ClientError: the server does not answer.
    """
    unreadable = _sources(walk.skipped)
    here = _documents_below(client, collection, begin)
    if here is None:  # no collection yet
        return SyncPlan(add=walk.found)
    new = find_new(client, collection, walk.found, sending=sending, on_progress=on_progress, everything=not compared)
    found = {file.source for file in walk.found}
    gone = sorted(here.keys() - found)
    return SyncPlan(
        add=[file for file in new if file.source not in here],
        update=[file for file in new if file.source in here],
        delete=[source for source in gone if not _is_below(source, unreadable)],
        spared=[source for source in gone if _is_below(source, unreadable)],
        unchanged=sending.unchanged,
        versions=here,
    )


def still_gone(plan: SyncPlan, walk: Walk) -> list[str]:
    """Return what is to be deleted where the folder is ``walk`` by now: nothing whose file is back, or unreadable.

    What changed in the collection since is for the server to leave alone: it knows ``versions``.
    """
    back, unreadable = {file.source for file in walk.found}, _sources(walk.skipped)
    return [source for source in plan.delete if source not in back and not _is_below(source, unreadable)]


def _documents_below(client: "Penstock", collection: str, begin: str) -> dict[str, int] | None:
    """Return the versions of the documents below a prefix that are not leaving; None: there is no such collection."""
    try:
        listed = client.all_documents(collection, prefix=below(begin))
        return {document.source: document.version for document in listed if document.state != "deleting"}
    except NotFound as error:
        if error.code != "unknown_collection":
            raise
        return None


def _sources(skipped: Sequence[Skipped]) -> set[str]:
    return {one.source for one in skipped if one.source is not None}


def _is_below(source: str, unreadable: set[str]) -> bool:
    """Say whether the file of this source, or a folder above it, is among what cannot be read."""
    ends = [at for at, character in enumerate(source) if character == "/"]
    return any(source[:end] in unreadable for end in (*ends, len(source)))
