"""The object store in a local directory: an object is a file, durable before it has its name."""

import hashlib
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from threading import Lock

from ..errors import AlreadyExists, NotFound
from ..failpoints import hit
from ..paths import checked_object_name
from .durability import sync_to_disk
from .store import ObjectInfo

log = logging.getLogger(__name__)
SCRATCH = ".scratch"  # begins with a dot: no object name can reach it
_IOV_MAX = 512
_KNOWN_DIRECTORIES_MAX = 8192
_LINK_ATTEMPTS = 16
_DIGEST = re.compile("[0-9a-f]{64}")


class LocalObjects:
    """Objects as files below ``root``; files are built in ``root/.scratch`` and linked to their names when durable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._durable_directories: set[Path] = set()
        self._lock = Lock()

    def put(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        target = self._path(name)
        temporary = self.scratch() / f"put-{secrets.token_hex(8)}"
        try:
            _write_file(temporary, parts)
            hit("objects.put.file_synced")
            self._link(temporary, target, name=name)
        finally:
            temporary.unlink(missing_ok=True)

    def get(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise _not_found(name) from error

    def get_range(self, name: str, *, offset: int, size_bytes: int) -> bytes:
        try:
            with self._path(name).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), size_bytes, offset)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise _not_found(name) from error

    def local_path(self, name: str, *, blake2b: str | None = None) -> Path:  # noqa: ARG002 this is the object itself
        path = self._path(name)
        if not path.is_file():
            raise _not_found(name)
        return path

    def is_local(self, name: str) -> bool:  # noqa: ARG002
        return True

    def drop_damaged_copy(self, name: str, *, blake2b: str) -> bool:  # noqa: ARG002
        return False

    def adopt(self, name: str, path: Path) -> None:
        with path.open("rb") as file:
            sync_to_disk(file.fileno())
        hit("objects.adopt.file_synced")
        self._link(path, self._path(name), name=name)
        path.unlink(missing_ok=True)

    def scratch(self) -> Path:
        directory = self.root / SCRATCH
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def exists(self, name: str) -> bool:
        return self._path(name).is_file()

    def missing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if not self.exists(name)]

    def find(self, name: str) -> ObjectInfo | None:
        try:
            status = self._path(name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return ObjectInfo(name=name, size_bytes=status.st_size, modified_at=status.st_mtime)

    def delete(self, name: str) -> None:
        path = self._path(name)
        path.unlink(missing_ok=True)
        # A staging folder per batch would otherwise stay for ever. A rival put that lost its folder makes it again.
        with suppress(OSError):
            path.parent.rmdir()
            with self._lock:
                self._durable_directories.discard(path.parent)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = self.root / prefix.rpartition("/")[0] if "/" in prefix else self.root
        for path in _files(folder):
            name = path.relative_to(self.root).as_posix()
            if name.startswith(prefix):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    yield ObjectInfo(name=name, size_bytes=status.st_size, modified_at=status.st_mtime)

    def _path(self, name: str) -> Path:
        return self.root / checked_object_name(name)

    def _link(self, source: Path, target: Path, *, name: str) -> None:
        """Give the finished file ``source`` the name ``target``, durably; collectors may remove names meanwhile."""
        for _ in range(_LINK_ATTEMPTS):
            try:
                self._make_durable(target.parent)
                _link_or_confirm(source, target, name=name)
                hit("objects.linked")
                _sync_directory(target.parent)
            except (FileNotFoundError, FileExistsError):  # the latter from a folder removed while it was being made
                if not source.exists():
                    raise
                with self._lock:
                    self._durable_directories.discard(target.parent)
            else:
                return
        raise NotFound(f"the folder of object {name} keeps disappearing")

    def _make_durable(self, directory: Path) -> None:
        """Make ``directory`` and sync every folder above it up to the root, once per process."""
        if directory in self._durable_directories and directory.is_dir():
            return
        directory.mkdir(parents=True, exist_ok=True)
        for folder in takewhile(lambda parent: parent != self.root.parent, directory.parents):
            _sync_directory(folder)
        with suppress(PermissionError):  # the entry of the root itself, where its parent may be read
            _sync_directory(self.root.parent)
        with self._lock:
            if len(self._durable_directories) >= _KNOWN_DIRECTORIES_MAX:
                self._durable_directories.clear()
            self._durable_directories.add(directory)


def _not_found(name: str) -> NotFound:
    return NotFound(f"there is no object {name}")


def _already_exists(name: str) -> AlreadyExists:
    return AlreadyExists(f"object {name} was written before with another size; objects are written once")


def _link_or_confirm(source: Path, target: Path, *, name: str) -> None:
    """Link; or, when a former try did, mark the object as modified now, so that no collector takes it for garbage."""
    try:
        os.link(source, target)
    except FileExistsError as error:
        if _holds_what_its_name_says(source, name=name) and not _holds_what_its_name_says(target, name=name):
            log.warning("Object %s was damaged: its bytes were submitted again and take its place.", name)
            source.replace(target)
            return
        if target.stat().st_size != source.stat().st_size:
            raise _already_exists(name) from error
        os.utime(target)


def _holds_what_its_name_says(path: Path, *, name: str) -> bool:
    """Return whether ``name`` ends in the digest of the file's bytes; most names end in no digest."""
    said = name.rpartition("/")[2]
    if not _DIGEST.fullmatch(said):
        return False
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        while some := file.read(1 << 20):
            digest.update(some)
    return digest.hexdigest() == said


def _write_file(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        while views:
            written = os.writev(descriptor, views[:_IOV_MAX])
            while views and written >= views[0].nbytes:
                written -= views.pop(0).nbytes
            if written:
                views[0] = views[0][written:]
        sync_to_disk(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_to_disk(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name != SCRATCH:
                yield from _files(Path(entry.path))
        else:
            yield Path(entry.path)
