"""Items of different length in one byte array: item ``i`` is ``data[offsets[i]:offsets[i + 1]]``.

It knows nothing of what the items are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Offsets = NDArray[np.uint64]  # one more than there are items, from 0 to the size of the data


def pack_items(items: Sequence[bytes]) -> tuple[Bytes, Offsets]:
    offsets = np.zeros(len(items) + 1, "<u8")
    np.cumsum([len(item) for item in items], out=offsets[1:])
    return np.frombuffer(b"".join(items), np.uint8), offsets


def take_items(data: Bytes, offsets: Offsets, rows: NDArray[Any]) -> tuple[Bytes, Offsets]:
    """Gather items; neighbours are copied as one run, so keeping nearly everything costs nearly nothing."""
    taken = np.zeros(len(rows) + 1, "<u8")
    if not len(rows):
        return np.empty(0, np.uint8), taken
    positions = rows.astype(np.int64)
    np.cumsum((offsets[positions + 1] - offsets[positions]), out=taken[1:])
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    first = positions[np.concatenate(([0], breaks))]
    last = positions[np.concatenate((breaks - 1, [len(positions) - 1]))]
    pieces = [data[int(a) : int(b)] for a, b in zip(offsets[first], offsets[last + 1], strict=True)]
    return np.concatenate(pieces), taken


def join_arrays(arrays: Sequence[NDArray[Any]], *, dtype: str) -> NDArray[Any]:
    """Return the arrays one after the other; none at all make an empty one."""
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def join_offsets(several: Sequence[Offsets]) -> Offsets:
    joined, base = [np.zeros(1, "<u8")], np.uint64(0)
    for offsets in several:
        joined.append(offsets[1:] + base)
        base = np.uint64(base + offsets[-1])
    return np.concatenate(joined)


def joined_ranges(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions from each start to its end, exclusive, one range after the other."""
    counts = ends - starts
    joined: NDArray[np.int64] = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
    return joined


def fits(data: NDArray[Any], offsets: NDArray[Any], *, count: int, at: NDArray[Any] | None = None) -> bool:
    """Say whether these are ``count`` items: the types, the ends, and offsets that never descend.

    With ``at``, positions of items, only of these: whether each lies inside of the data.
    """
    typed = data.dtype == np.uint8 and data.ndim == 1 and offsets.dtype == np.dtype("<u8")
    if not typed or offsets.shape != (count + 1,):
        return False
    if at is not None:
        starts, ends = offsets[at], offsets[at.astype(np.int64) + 1]
        return bool((starts <= ends).all() and (ends <= data.size).all())
    return offsets[0] == 0 and int(offsets[-1]) == data.size and not (offsets[1:] < offsets[:-1]).any()
