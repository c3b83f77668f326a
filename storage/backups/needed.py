"""Which objects the catalog leads to, as one read transaction sees it. With the checksum of each that has one."""

import re
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.completion import OPEN_BATCH
from ..catalog.tables import batches, collections, generations, manifests, versions
from ..errors import Damaged, Unsupported
from ..ledger.aside import staged_for_orders
from ..objects.store import ObjectStore
from ..segments.manifests import FileEntry, Swap, read_manifest
from .scope import Scope

_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass
class Needed:
    """``objects``: by name the blake2b-256 in hex, None where nothing says what it is; ``unreadable``: manifests."""

    objects: dict[str, str | None] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def add(self, file: FileEntry) -> None:
        self.objects[file.name] = file.blake2b


def read_names(connection: Connection, scope: Scope) -> Needed:
    """Return what rows name: manifests, packs, what is staged, and what merges made."""
    needed = Needed()
    of_manifests = sa.select(manifests.c.name).where(_mine(manifests.c.generation_id, scope))
    for name in connection.scalars(of_manifests):
        needed.objects[name] = None
    mine = sa.true() if scope.collection_id is None else versions.c.collection_id == scope.collection_id
    for name in connection.scalars(sa.select(versions.c.pack).where(mine, versions.c.pack != "").distinct()):
        last = name.rpartition("/")[2]
        needed.objects[name] = last if _DIGEST.fullmatch(last) else None
    # What was copied for another generation waits in its batch to be published, though that is over.
    is_needed = sa.or_(batches.c.state.in_(OPEN_BATCH), batches.c.reembedding_id.is_not(None))
    told = sa.select(batches.c.stage, batches.c.input, batches.c.output, batches.c.details)
    told = told.where(is_needed, _mine(batches.c.generation_id, scope))
    for row in connection.execute(told):
        needed.objects |= dict.fromkeys([name for name in (row.input, row.output) if name], None)
        needed.objects |= dict.fromkeys(staged_for_orders(row.details or {}), None)
        for file in Swap.from_details(row.details).output.all_files if row.stage == "swap" else []:
            needed.add(file)
    return needed


def add_files(needed: Needed, objects: ObjectStore) -> None:
    """Add what the manifests among them name."""
    for name in [name for name in needed.objects if "/manifests/" in name]:
        try:
            manifest = read_manifest(objects, name)
        except (Damaged, Unsupported):
            needed.unreadable.append(name)
            continue
        for entry in manifest.segments:
            for file in entry.all_files:
                needed.add(file)


def _mine(generation_id: sa.ColumnElement[str], scope: Scope) -> sa.ColumnElement[bool]:
    if scope.collection_id is None:
        return sa.true()
    owned = sa.select(generations.c.id).join(collections, collections.c.id == generations.c.collection_id)
    return generation_id.in_(owned.where(collections.c.id == scope.collection_id))
