"""Local copies of remote objects, to be mapped: downloaded once, verified, dropped by last use above a number of bytes.

Several processes may share one directory. A copy gets its name only when all of it is there, on disk and verified, and
it never changes afterwards; what is half there lies in ``.partial`` and is continued by whoever wants it next, after a
kill too. A copy that is mapped is kept: dropping it would free nothing. What the directory holds is nobody's only copy.

<directory>/checked/<object name>     compared with a checksum when it came
<directory>/unchecked/<object name>   downloaded for somebody who had none
<directory>/.partial/<digest>         the first bytes of an object of one ETag
"""

import fcntl
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EDQUOT, EIO, ENOSPC
from hashlib import blake2b as new_blake2b
from hashlib import file_digest
from io import BufferedReader, FileIO
from pathlib import Path
from threading import Lock

from ..errors import Damaged, Unavailable
from .durability import sync_to_disk
from .local import SCRATCH
from .mapped_files import COPY_MODE, remove_unmapped

log = logging.getLogger(__name__)

RANGE_BYTES = 8 << 20
PARALLEL = 4
STALLED_S = 20.0  # another process that downloads the same file and gets nothing for so long is not waited for
_POLL_S = 0.02
_DIGEST_BYTES = 32
_PARTIAL = ".partial"
_KEPT_SHARE = 0.9  # of the capacity, after making room: so that not every download has to
_SHARERS = 4  # how many processes may use what is free before one of them looks again
_REFUSED_MAX = 1_000


@dataclass(frozen=True)
class RemoteFile:
    """An object as it is now. ``read(offset, size_bytes)`` gives bytes of just this ETag or raises."""

    name: str
    e_tag: str
    size_bytes: int
    start: bytes  # its first bytes, which came with the answer
    read: Callable[[int, int], bytes]


class ObjectCache:
    """Copies in ``directory``, at most ``capacity_bytes`` of them as long as fewer are mapped. Safe between threads."""

    def __init__(self, directory: Path, *, capacity_bytes: int) -> None:
        self.directory = directory
        self._capacity_bytes = capacity_bytes
        self._free_bytes = 0  # to be used without looking at the directory again
        self._lock = Lock()
        self._refused: dict[tuple[str, str, str], str] = {}

    def local_path(self, name: str, *, blake2b: str | None, look: Callable[[], RemoteFile]) -> Path:
        """Return the copy of an object, downloaded if need be, and count it as used now.

        Args:
            blake2b: checksum of the whole file in hex; compared when the file is downloaded and not again.
            look: asks for the object; called only when there is no copy. What it raises is passed on.

        Raises:
            Damaged: what was downloaded, twice, does not match.
            Unavailable: the directory has no room.
        """
        target = self._target(name, checked=blake2b is not None)
        if _use(target):
            return target
        remote = look()
        self._make_room(remote.size_bytes)
        try:
            self._download(remote, target, blake2b=blake2b)
        except OSError as error:
            if error.errno not in {ENOSPC, EDQUOT}:
                raise
            raise Unavailable(
                f"{self.directory} has no room for {name} ({remote.size_bytes} bytes): free some, or name another "
                "directory in objects.cache_directory"
            ) from error
        return target

    def has_checked(self, name: str) -> bool:
        return self._target(name, checked=True).is_file()

    def drop_damaged(self, name: str, *, blake2b: str) -> bool:
        """Drop the copy if it is not what the checksum says. Returns whether it was dropped."""
        target = self._target(name, checked=True)
        try:
            with target.open("rb") as file:
                if _reads_as(file, blake2b):
                    return False
                held = os.fstat(file.fileno()).st_ino
            if target.stat().st_ino == held:
                target.unlink()
        except FileNotFoundError:
            return False
        log.warning("The local copy of %s was damaged and is downloaded again.", name)
        return True

    def drop(self, name: str) -> None:
        """Drop the copies of an object that was deleted."""
        for checked in (True, False):
            with suppress(FileNotFoundError, NotADirectoryError):
                self._target(name, checked=checked).unlink()

    def scratch(self) -> Path:
        directory = self.directory / SCRATCH
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _target(self, name: str, *, checked: bool) -> Path:
        return self.directory / ("checked" if checked else "unchecked") / name

    def _download(self, remote: RemoteFile, target: Path, *, blake2b: str | None) -> None:
        refusal = (remote.name, remote.e_tag, blake2b or "")
        if refusal in self._refused:  # not gigabytes again for every search
            raise Damaged(self._refused[refusal])
        for _ in range(2):  # a resumed file may be torn by a power loss, a new one by the network
            with self._partial(remote, target) as part:
                if part is None:
                    return
                if _complete(part, remote) == blake2b or blake2b is None:
                    _give_name(part, target)
                    return
                Path(str(part.name)).unlink(missing_ok=True)
        message = f"{remote.name} does not match its checksum in the manifest; restore or rebuild it"
        with self._lock:
            if len(self._refused) >= _REFUSED_MAX:
                self._refused.clear()
            self._refused[refusal] = message
        raise Damaged(message)

    @contextmanager
    def _partial(self, remote: RemoteFile, target: Path) -> Iterator[FileIO | None]:
        """Give what there is of the file, held alone; None when another process completed it meanwhile."""
        folder = self.directory / _PARTIAL
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / new_blake2b(f"{remote.name}\n{remote.e_tag}".encode(), digest_size=16).hexdigest()
        deadline, seen_bytes = time.monotonic() + STALLED_S, -1
        while True:
            with path.open("a+b", buffering=0) as part:
                if _lock_alone(part, path):
                    if _use(target):
                        path.unlink()
                        yield None
                    else:
                        yield part
                    return
                if os.fstat(part.fileno()).st_size != seen_bytes:
                    deadline, seen_bytes = time.monotonic() + STALLED_S, os.fstat(part.fileno()).st_size
            if _use(target):
                yield None
                return
            if time.monotonic() > deadline:
                path = path.with_name(f"{path.name}-{secrets.token_hex(4)}")
            time.sleep(_POLL_S)

    def _make_room(self, wanted_bytes: int) -> None:
        with self._lock:
            self._free_bytes -= wanted_bytes
            if self._free_bytes < 0:
                self._free_bytes = self._evict(wanted_bytes)

    def _evict(self, wanted_bytes: int) -> int:
        """Drop what was used least lately until ``wanted_bytes`` fit; return how much this process may then add."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / ".evicting").open("ab") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)  # two that drop at once would drop twice as much; none waits in there
            copies = sorted(self._copies(), key=lambda copy: copy.used_at)
            held_bytes = wanted_bytes + sum(copy.size_bytes for copy in copies)
            if held_bytes > self._capacity_bytes:
                for copy in copies:
                    if held_bytes <= self._capacity_bytes * _KEPT_SHARE:
                        break
                    if remove_unmapped(copy.path):
                        held_bytes -= copy.size_bytes
                        with suppress(OSError):
                            copy.path.parent.rmdir()
        return max(0, self._capacity_bytes - held_bytes) // _SHARERS

    def _copies(self) -> Iterator["_Copy"]:
        for folder in ("checked", "unchecked", _PARTIAL):
            for parent, _, names in os.walk(self.directory / folder):
                for name in names:
                    path = Path(parent, name)
                    with suppress(FileNotFoundError):
                        status = path.stat()
                        yield _Copy(path, status.st_size, status.st_mtime)


@dataclass(frozen=True)
class _Copy:
    path: Path
    size_bytes: int
    used_at: float


def _reads_as(file: BufferedReader, blake2b: str) -> bool:
    """Say whether the file has this digest; what the disk cannot read has none."""
    try:
        return file_digest(file, _new_digest).hexdigest() == blake2b
    except OSError as error:
        if error.errno != EIO:
            raise
        return False


def _use(path: Path) -> bool:
    """Return whether the copy is there, and count it as used now."""
    try:
        os.utime(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return path.is_file()


def _lock_alone(part: FileIO, path: Path) -> bool:
    """Take the file for this download; False while another has it, or when its name is gone or of another by now."""
    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(part.fileno()).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _complete(part: FileIO, remote: RemoteFile) -> str:
    """Append what is missing, the ranges side by side, and return the digest of the whole file in hex."""
    at = os.fstat(part.fileno()).st_size
    if at > remote.size_bytes:
        part.truncate(at := 0)
    part.seek(0)
    digest = file_digest(part, _new_digest)
    for data in _ranges(remote, at):
        view = memoryview(data)
        digest.update(view)
        while view:
            view = view[part.write(view) :]
    return digest.hexdigest()


def _ranges(remote: RemoteFile, at: int) -> Iterator[bytes]:
    """Yield the bytes from ``at`` on, in order, while the next ranges are on their way."""
    if at < len(remote.start):
        yield remote.start[at:]
        at = len(remote.start)
    if at >= remote.size_bytes:
        return
    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="download") as pool:
        try:
            while at < remote.size_bytes or pending:
                while at < remote.size_bytes and len(pending) < PARALLEL:
                    size_bytes = min(RANGE_BYTES, remote.size_bytes - at)
                    pending.append(pool.submit(remote.read, at, size_bytes))
                    at += size_bytes
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _give_name(part: FileIO, target: Path) -> None:
    """Make the finished file a copy; its bytes are on disk before its name is, which a power loss must not part."""
    os.fchmod(part.fileno(), COPY_MODE)
    sync_to_disk(part.fileno())
    while True:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            Path(str(part.name)).rename(target)
        except FileNotFoundError:  # the folder was emptied and removed at this moment
            if not Path(str(part.name)).exists():
                raise
        else:
            return


def _new_digest() -> new_blake2b:
    return new_blake2b(digest_size=_DIGEST_BYTES)
