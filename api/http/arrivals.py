"""What became of a submission: what its documents still wait for, and the token of a search that finds them all."""

from dataclasses import dataclass
from typing import Any

from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.sources import read_arrival
from penstock.storage.ids import ManifestVersion
from penstock.storage.intake.documents import Accepted
from penstock.storage.tokens import token_of


@dataclass
class Arriving:
    """A submission that was accepted. ``waiting``: its sources that are not searchable, failed or gone yet."""

    collection: CollectionInfo
    accepted: Accepted
    waiting: list[str]
    indexed_version: ManifestVersion | None = None

    def look(self, catalog: Catalog) -> None:
        """Find out what arrived since; of what has arrived nothing is asked again."""
        seen = read_arrival(catalog, collection_id=self.collection.id, sources=self.waiting)
        self.waiting = seen.waiting
        versions = [one for one in (self.indexed_version, seen.indexed_version) if one is not None]
        self.indexed_version = max(versions, default=None)

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return `wire.Submitted` as it was at the last look; ``job`` is its `wire.Job`."""
        accepted, version = self.accepted, None if self.waiting else self.indexed_version
        return {
            "job": job,
            "accepted": accepted.accepted,
            "replaced": accepted.replaced,
            "unchanged": accepted.unchanged,
            "pending": len(self.waiting),
            "token": None if version is None else token_of(self.collection.generation.id, version),
        }


def arriving(catalog: Catalog, collection: CollectionInfo, accepted: Accepted, *, sources: list[str]) -> Arriving:
    """Return how far the documents of a submission are. Of new ones nothing needs to be asked."""
    made = Arriving(collection, accepted, sources)
    if accepted.replayed or accepted.accepted < len(sources):
        made.look(catalog)
    return made
