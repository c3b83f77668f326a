"""Mapping the pages of a file before a search meets them, while the version before still serves.

The first search of a page that is in memory, but not yet in the map, takes a fault; the first of a merged graph would
take a thousand. Where the system cannot do it at once (before Linux 5.14, or not Linux) nothing happens: a fault is
slower, not wrong.
"""

import ctypes
import mmap
import sys
from typing import Any

from numpy.typing import NDArray

_POPULATE_READ = 22  # MADV_POPULATE_READ of Linux
_STEP_BYTES = 16 << 20  # the map is locked for the time of a step
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def touch(array: NDArray[Any]) -> bool:
    """Map all pages of a mapped array, without the GIL; returns whether the system could."""
    if _libc is None or not array.nbytes:
        return False
    first = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    end = array.ctypes.data + array.nbytes
    for at in range(first, end, _STEP_BYTES):
        size_bytes = min(_STEP_BYTES, end - at)
        if _libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(size_bytes), _POPULATE_READ):
            return False
    return True
