"""Opening files that will be mapped, so that who shares a cache of files can see which ones are mapped.

A map keeps its file's descriptor, and with it the shared lock that is taken here: until the last map of a copy is gone,
in any process, ``remove_unmapped`` leaves it. When a process dies, its locks go with it.
"""

import fcntl
import os
import stat
from pathlib import Path
from typing import BinaryIO

# The mode of a copy in a cache. Only such files are locked: on a network file system a lock costs a round trip.
COPY_MODE = 0o444
_ANY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def open_to_map(path: Path) -> BinaryIO:
    """Open a file that the caller maps before closing it. Raises FileNotFoundError."""
    file = path.open("rb")
    if not os.fstat(file.fileno()).st_mode & _ANY_WRITE:
        fcntl.flock(file, fcntl.LOCK_SH)  # waits only for somebody who is removing the name just now
    return file


def remove_unmapped(path: Path) -> bool:
    """Remove a copy's name, unless it is mapped or being written: that would free nothing. Returns whether it went."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except (FileNotFoundError, BlockingIOError):
        return False
    return True
