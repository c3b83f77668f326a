"""An object store in memory, which passes the contract of the real one."""

import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock

from penstock.storage.errors import AlreadyExists, NotFound
from penstock.storage.objects.local import SCRATCH
from penstock.storage.objects.store import ObjectInfo
from penstock.storage.paths import checked_object_name


class MemoryObjects:
    """Objects in memory, dated by ``clock``: the same contract, but nothing outlives the process."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = Lock()
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-objects-"))
        self._cleanup = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def put(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        data = b"".join(parts)
        with self._lock:
            before = self._objects.get(checked_object_name(name))
            if before is not None and len(before[0]) != len(data):
                raise AlreadyExists(f"object {name} was written before with another size")
            self._objects[name] = (before[0] if before else data, self._clock())

    def get(self, name: str) -> bytes:
        with self._lock:
            found = self._objects.get(checked_object_name(name))
        if found is None:
            raise NotFound(f"there is no object {name}")
        return found[0]

    def get_range(self, name: str, *, offset: int, size_bytes: int) -> bytes:
        return self.get(name)[offset : offset + size_bytes]

    def local_path(self, name: str, *, blake2b: str | None = None) -> Path:
        data = self.get(name)
        path = self._folder / "spilled" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.scratch() / secrets.token_hex(8)
            temporary.write_bytes(data)
            temporary.replace(path)
        return path

    def is_local(self, name: str) -> bool:
        return True

    def drop_damaged_copy(self, name: str, *, blake2b: str) -> bool:
        return False

    def adopt(self, name: str, path: Path) -> None:
        self.put(name, [path.read_bytes()])
        path.unlink()

    def scratch(self) -> Path:
        directory = self._folder / SCRATCH
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def exists(self, name: str) -> bool:
        return checked_object_name(name) in self._objects

    def missing(self, names: Iterable[str]) -> "list[str]":
        return [name for name in names if not self.exists(name)]

    def find(self, name: str) -> ObjectInfo | None:
        with self._lock:
            found = self._objects.get(checked_object_name(name))
        return None if found is None else ObjectInfo(name=name, size_bytes=len(found[0]), modified_at=found[1])

    def delete(self, name: str) -> None:
        with self._lock:
            self._objects.pop(checked_object_name(name), None)
        (self._folder / "spilled" / name).unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._lock:
            found = [(name, len(data), at) for name, (data, at) in self._objects.items() if name.startswith(prefix)]
        yield from (ObjectInfo(name=name, size_bytes=size, modified_at=at) for name, size, at in found)
