"""Makes a backup: the rows of one moment, and every object that they lead to, while the service goes on.

Objects never change, and each is written before the catalog names it; so the rows are read in one transaction, and the
objects copied around it: most before, for what they lead to then, the rest after. What a collector takes away in
between, because nothing leads to it any more, makes the rows be read again.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ..catalog.engine import Catalog
from ..catalog.migrations import revision_of
from ..errors import Damaged, NotFound
from ..failpoints import hit
from ..objects.store import ObjectStore
from .copies import Copy, copy_object, copy_there
from .needed import Needed, add_files, read_names
from .places import OBJECTS, Backup, Place, write_copies
from .rows import checksum, write_rows
from .scope import Scope, tables_of

ATTEMPTS = 3  # each finds fewer objects gone than the one before


def _go_on() -> None:
    """Go on always."""


@dataclass
class Progress:
    """How far it is. ``go_on`` is called all the time and may raise to end it: what was copied stays for the next."""

    go_on: Callable[[], None] = _go_on
    copied: int = 0
    copied_bytes: int = 0
    kept: int = 0


@dataclass
class _Making:
    catalog: Catalog
    objects: ObjectStore
    place: Place
    scope: Scope
    progress: Progress
    former: dict[str, Copy]
    copies: dict[str, Copy] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)

    def copy(self, needed: Needed) -> None:
        """Copy what is not there yet; what cannot be copied is ``bad``, unless a later look needs it no more."""
        target = self.place.objects
        for name, expected in needed.objects.items():
            if name in self.copies:
                continue
            self.progress.go_on()
            there = copy_there(name, target, former=self.former, go_on=self.progress.go_on)
            if there is not None and expected in (None, there.blake2b):
                self.copies[name] = there
                self.progress.kept += 1
                continue
            if there is not None:
                target.delete(name)
            try:
                made = copy_object(name, self.objects, target, expected=expected, go_on=self.progress.go_on)
            except (NotFound, Damaged) as error:
                self.bad[name] = str(error)
                continue
            self.bad.pop(name, None)
            self.copies[name] = made
            self.progress.copied += 1
            self.progress.copied_bytes += made.size_bytes

    def look(self, path: Path | None) -> tuple[Needed, dict[str, int], str]:
        """Return what the catalog leads to, and write its rows below ``path``, all of one moment."""
        rows: dict[str, int] = {}
        with self.catalog.read() as connection:
            needed, revision = read_names(connection, self.scope), revision_of(connection)
            for table, condition in tables_of(self.scope) if path is not None else ():
                assert path is not None
                rows[table.name] = write_rows(connection, table, condition, path / "tables" / f"{table.name}.jsonl.gz")
                self.progress.go_on()
        add_files(needed, self.objects)
        return needed, rows, revision


def make_backup(
    catalog: Catalog,
    objects: ObjectStore,
    folder: Path,
    *,
    scope: Scope,
    now: float,
    keep: int | None = None,
    progress: Progress | None = None,
) -> Backup:
    """Make a backup in ``folder``, which may have others, and remove the oldest of its scope beyond ``keep``.

    Killed at any line it leaves the backups that were there; what it copied is taken up by the next one.

    Raises:
        Conflict: another backup is being made there. OSError: the folder cannot be written.
        NotFound, Damaged, Unavailable: the store or the catalog cannot be read; or, with ``keep``, an older backup
            cannot, so that nobody knows what it needs: this one is made then, and nothing is removed.
    """
    place = Place(folder)
    with place.held():
        making = _Making(catalog, objects, place, scope, progress or Progress(), place.former())
        making.copy(making.look(None)[0])
        made = _recorded(making, now=now)
        if keep is not None:
            _prune(place, made, keep=keep)
    return made


def _recorded(making: _Making, *, now: float) -> Backup:
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S.%fZ")  # ids sort by time
    backup_id = f"{stamp}-{secrets.token_hex(3)}"
    for _ in range(ATTEMPTS):
        path = making.place.begun(backup_id)
        needed, rows, revision = making.look(path)
        making.copy(needed)
        missing = sorted({name for name in needed.objects if name not in making.copies} | {*needed.unreadable})
        if not missing:
            break
    mine = {name: copy for name, copy in making.copies.items() if name in needed.objects}
    hit("backup.copied")
    write_copies(path, mine)
    names = [OBJECTS, *(f"tables/{table}.jsonl.gz" for table in rows)]
    made = Backup(
        id=backup_id,
        created_at=now,
        scope=making.scope.word,
        revision=revision,
        rows=rows,
        object_count=len(mine),
        size_bytes=sum(copy.size_bytes for copy in mine.values()),
        missing=missing,
        files={name: checksum(path / name) for name in names},
    )
    making.place.finish(path, made)
    return made


def _prune(place: Place, made: Backup, *, keep: int) -> None:
    """Remove the oldest backups of the same scope; one that lacks objects makes no older one needless."""
    if made.missing:
        return
    for backup in [one for one in place.list() if one.scope == made.scope][keep:]:
        place.remove(backup)
    place.sweep()
