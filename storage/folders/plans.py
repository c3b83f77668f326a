"""What has to happen for a collection, or a prefix of it, to equal a folder. What cannot be read now stays."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .walks import Found, Skipped, Walk

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


def plan_for(
    walk: Walk, *, new: Sequence[Found], unread: Collection[Skipped], here: Mapping[str, int], unchanged: int
) -> SyncPlan:
    """Compare a folder with what is here below its prefix.

    Args:
        new: those files of it whose content is not here, under their source.
        unread: what could not be read of it.
        here: the versions of the documents that are here, by source.
        unchanged: how many files are here as they are.
    """
    unreadable = _sources(unread)
    gone = sorted(here.keys() - {file.source for file in walk.found})
    return SyncPlan(
        add=[file for file in new if file.source not in here],
        update=[file for file in new if file.source in here],
        delete=[source for source in gone if not _is_below(source, unreadable)],
        spared=[source for source in gone if _is_below(source, unreadable)],
        unchanged=unchanged,
        versions=dict(here),
    )


def still_gone(plan: SyncPlan, walk: Walk) -> list[str]:
    """Return what is to be deleted where the folder is ``walk`` by now: nothing whose file is back, or unreadable.

    What changed in the collection since is for the server to leave alone: it knows ``versions``.
    """
    back, unreadable = {file.source for file in walk.found}, _sources(walk.skipped)
    return [source for source in plan.delete if source not in back and not _is_below(source, unreadable)]


def _sources(skipped: Collection[Skipped]) -> set[str]:
    return {one.source for one in skipped if one.source is not None}


def _is_below(source: str, unreadable: set[str]) -> bool:
    """Say whether the file of this source, or a folder above it, is among what cannot be read."""
    ends = [at for at, character in enumerate(source) if character == "/"]
    return any(source[:end] in unreadable for end in (*ends, len(source)))
