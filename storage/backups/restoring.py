"""Brings a backup back into a new installation: its objects first, then all its rows in one transaction.

It can be repeated: objects that are there already are compared and stay, and before the last transaction the catalog is
as empty as it was.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.engine import Catalog
from ..catalog.migrations import revision_of
from ..catalog.tables import accounts, backlogs, installation, metadata, shards, tenants
from ..errors import Conflict, Unsupported
from ..objects.store import ObjectStore
from .copies import Copy, copy_object, measured
from .places import Backup, Place
from .rows import insert_rows

BEGUN = (installation, tenants, backlogs, accounts, shards)  # what an installation has that was only started


def restore(
    catalog: Catalog,
    objects: ObjectStore,
    folder: Path,
    *,
    backup_id: str | None = None,
    on_object: Callable[[int], None] = lambda _size_bytes: None,
) -> Backup:
    """Restore a backup, by default the newest, and return it. The catalog has its schema, and nothing that was used.

    Raises:
        NotFound: there is no such backup. Damaged: it is not what was written; nothing can be searched then.
        Conflict: the catalog or the object store is in use.
        Unsupported: the backup is of another version of this program.
    """
    place = Place(folder)
    backup = place.find(backup_id)
    place.check(backup)
    with catalog.read() as connection:
        _check_fits(connection, backup)
    copies = place.copies(backup)
    _check_alone(objects, copies)
    for name, copy in copies.items():
        found = objects.find(name)
        if found is None:
            copy_object(name, place.objects, objects, expected=copy.blake2b, go_on=lambda: None)
        elif measured(name, objects, go_on=lambda: None) != copy:
            raise Conflict(f"object {name} is in the object store and differs: restore into an empty one")
        on_object(copy.size_bytes)
    with catalog.write("restore") as connection:
        _check_fits(connection, backup)
        for table in reversed(BEGUN):
            connection.execute(sa.delete(table))
        for table in metadata.sorted_tables:
            if table.name in backup.rows:
                insert_rows(connection, table, place.path(backup) / "tables" / f"{table.name}.jsonl.gz")
        # Nobody of that installation holds anything here.
        connection.execute(sa.update(shards).values(owner=None, expires_at=0.0))
    return backup


def _check_alone(objects: ObjectStore, copies: Mapping[str, Copy]) -> None:
    """Refuse a store that holds more: nothing here would lead to that, and the collector would delete it."""
    for info in objects.list("tenants/"):
        if info.name not in copies:
            raise Conflict(
                f"the object store is in use, it holds {info.name}, which the backup has not: restore into an empty one"
            )


def _check_fits(connection: Connection, backup: Backup) -> None:
    revision = revision_of(connection)
    if revision != backup.revision:
        raise Unsupported(
            f"backup {backup.id} has a catalog of revision {backup.revision}, this program makes {revision}: restore "
            "it with the version that made it, then upgrade"
        )
    for table in metadata.sorted_tables:
        if table not in BEGUN and connection.scalar(sa.select(sa.literal(1)).select_from(table).limit(1)) is not None:
            raise Conflict(
                f"the catalog is in use, its table {table.name} has rows: restore into a new installation, with a "
                "--data-dir of its own"
            )
