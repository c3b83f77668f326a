"""A folder of backups: the objects that all of them share, and one folder for each with the rows of the catalog.

    <folder>/objects/tenants/…                   objects, under the names that they have in the store
    <folder>/backups/<id>/tables/<table>.jsonl.gz
    <folder>/backups/<id>/objects.jsonl.gz       the objects that it needs: name, size, blake2b-256
    <folder>/backups/<id>/backup.json            what it is; the checksums of the files beside it

A backup is made in ``backups/.<id>`` and has its name when it is whole and durable. Objects are written once.
"""

import fcntl
import gzip
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import Conflict, Damaged, NotFound, Unsupported
from ..failpoints import hit
from ..objects.durability import sync_to_disk
from ..objects.local import LocalObjects
from .copies import Copy
from .rows import checksum
from .scope import EVERYTHING

log = logging.getLogger(__name__)

FORMAT = 1
ABOUT = "backup.json"
OBJECTS = "objects.jsonl.gz"


@dataclass(frozen=True)
class Backup:
    """What one is. ``scope``: everything, or the id of a collection. ``files``: by name, the blake2b-256 in hex.

    ``missing``: objects that the catalog named in vain.
    """

    id: str
    created_at: float
    scope: str
    revision: str
    rows: Mapping[str, int]
    object_count: int
    size_bytes: int
    missing: list[str] = field(default_factory=list)
    files: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True)
class Place:
    """A folder of backups."""

    folder: Path

    @property
    def objects(self) -> LocalObjects:
        return LocalObjects(self.folder / "objects")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from making or removing backups here. Raises Conflict: somebody does."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise Conflict(f"a backup is just being made in {self.folder}: try again later") from error
        try:
            yield
        finally:
            os.close(descriptor)

    def begun(self, backup_id: str) -> Path:
        """Return an empty folder to make a backup in; what others left half made goes."""
        for left in (self.folder / "backups").glob(".*"):
            shutil.rmtree(left)
        path = self.folder / "backups" / f".{backup_id}"
        (path / "tables").mkdir(mode=0o700, parents=True)
        return path

    def finish(self, path: Path, backup: Backup) -> None:
        """Give a backup its name, with all its files durable."""
        (path / ABOUT).write_text(json.dumps(asdict(backup), indent=2), encoding="utf-8")
        hit("backup.written")
        for file in (*path.rglob("*"), path):
            _sync(file)
        hit("backup.synced")
        path.rename(path.with_name(backup.id))
        hit("backup.named")
        _sync(path.parent)
        _sync(self.folder)

    def list(self) -> list[Backup]:
        """Return the backups that are whole, the newest first. Raises Damaged, Unsupported."""
        found = sorted((self.folder / "backups").glob("[!.]*/" + ABOUT), reverse=True)
        return [_read(path) for path in found]

    def former(self) -> dict[str, Copy]:
        """Return the objects that backups have here, by name. One that cannot be read is no help, and no hindrance."""
        found: dict[str, Copy] = {}
        for path in (self.folder / "backups").glob("[!.]*/" + ABOUT):
            try:
                found |= self.copies(_read(path))
            except (Damaged, Unsupported) as error:
                log.warning("A backup that is there already is no help: %s", error)
        return found

    def find(self, backup_id: str | None) -> Backup:
        """Return one backup, by default the newest of everything, else the newest. Raises NotFound."""
        found = self.list()
        whole = [backup for backup in found if backup.scope == EVERYTHING]
        for backup in found if backup_id is not None else [*whole, *found]:
            if backup_id in (None, backup.id):
                return backup
        there = ", ".join(one.id for one in found) or "none"
        which = "no backup" if backup_id is None else f"no backup {backup_id}"
        raise NotFound(f"there is {which} in {self.folder}; there are: {there}")

    def check(self, backup: Backup) -> None:
        """Compare the files of a backup with their checksums. Raises Damaged."""
        for name, told in backup.files.items():
            path = self.path(backup) / name
            if not path.is_file() or checksum(path) != told:
                raise Damaged(f"{path} is missing or not what was written: use another backup")

    def path(self, backup: Backup) -> Path:
        return self.folder / "backups" / backup.id

    def copies(self, backup: Backup) -> dict[str, Copy]:
        """Return the objects of a backup, by name. Raises Damaged."""
        found: dict[str, Copy] = {}
        path = self.path(backup) / OBJECTS
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                for line in file:
                    name, size_bytes, blake2b = json.loads(line)
                    found[name] = Copy(size_bytes, blake2b)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise Damaged(f"{path} is missing or not what was written: use another backup") from error
        return found

    def remove(self, backup: Backup) -> None:
        """Forget a backup; its objects stay until `sweep`."""
        path = self.path(backup)
        hidden = path.with_name(f".{backup.id}")
        path.rename(hidden)  # never half a backup under its name
        hit("backup.hidden")
        shutil.rmtree(hidden)

    def sweep(self) -> int:
        """Delete the objects that no backup needs; returns how many."""
        kept = {name for backup in self.list() for name in self.copies(backup)}
        objects = self.objects
        gone = [info.name for info in objects.list("") if info.name not in kept]
        for name in gone:
            objects.delete(name)
            hit("backup.object_deleted")
        for path in objects.scratch().iterdir():
            path.unlink()
        return len(gone)


def write_copies(path: Path, copies: Mapping[str, Copy]) -> None:
    """Write the objects of a backup that is being made."""
    with gzip.open(path / OBJECTS, "wt", encoding="utf-8", compresslevel=4) as file:
        for name, copy in sorted(copies.items()):
            file.write(json.dumps([name, copy.size_bytes, copy.blake2b]) + "\n")


def _read(path: Path) -> Backup:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise Unsupported(f"{path} has format {values['format']}: it needs another version of this program")
        return Backup(**values)
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path} cannot be read: {error}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync_to_disk(descriptor)
    finally:
        os.close(descriptor)
