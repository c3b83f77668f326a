"""How many files this process may keep open: each mapped file holds a descriptor, and thousands of tenants map many.

Systems let a process have a thousand unless it asks for more. It closes nothing: see ``shelf.py``.
"""

import resource
from contextlib import suppress

MOST = 65_536  # Linux maps no more than that (vm.max_map_count), so more descriptors would not help
PER_FILE = 2  # of a file that snapshots use, at most: the map, and one to read what is not mapped


def raise_open_files(*, most: int = MOST) -> int:
    """Ask for as many open files as the system grants, up to ``most``, and return how many there may be now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # macOS names a limit that it does not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft


def files_for_snapshots(open_files: int) -> int:
    """Return how many files snapshots may use, so that half of ``open_files`` is left for all else."""
    return max(1, open_files // 2 // PER_FILE)
