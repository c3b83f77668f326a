"""One `penstock up` per data directory. The lock goes with the process, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StartFailed


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data directory.

    Raises:
        StartFailed: another process holds it; the message names it.
    """
    descriptor = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise StartFailed(
                f"another `penstock up` (process {holder}) is running on {data_dir}; "
                "stop it first, or choose another directory with --data-dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
