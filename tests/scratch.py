"""Where the tests' temporary files lie: a whole run writes, syncs and removes some 50,000 of them."""

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
NEEDED_BYTES = 4 << 30


def work_in_memory() -> None:
    """Let temporary files lie in memory if there is room, and nobody said by TMPDIR where they should lie.

    No promise that is tested depends on a disk: a killed process loses nothing that it wrote, on either. Processes
    that are started from here on inherit the choice.
    """
    if "TMPDIR" in os.environ or not _has_room():
        return
    # The folder itself: the path of a socket has at most 107 characters. pytest has looked before this is imported.
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def _has_room() -> bool:
    try:
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        available = int(told["MemAvailable"].split()[0]) << 10
        return os.access(MEMORY, os.W_OK) and min(available, shutil.disk_usage(MEMORY).free) >= NEEDED_BYTES
    except (OSError, KeyError, ValueError):  # not Linux
        return False
