"""Checksums of a file's blocks: one pass of hashing serves a check of all of them and one of a few.

A sample notices damage that spreads (a disk that dies, a file written over) in bounded time, however large the file.
"""

import random
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from .ragged import joined_ranges

BLOCK_BYTES = 128 << 10
DIGEST_BYTES = 16


def block_digests(data: memoryview) -> NDArray[np.uint8]:
    """Return u1[blocks, 16]: the blake2b-128 of each block of ``data``, the last one perhaps shorter."""
    starts = range(0, data.nbytes, BLOCK_BYTES)
    digests = b"".join(_digest(data[start : start + BLOCK_BYTES]) for start in starts)
    return np.frombuffer(digests, "|u1").reshape(-1, DIGEST_BYTES)


def blocks_match(data: memoryview, digests: NDArray[np.uint8], *, sample: int | None = None) -> bool:
    """Return whether all blocks of ``data``, or ``sample`` of them drawn at random, are what was written."""
    if digests.shape != (-(-data.nbytes // BLOCK_BYTES), DIGEST_BYTES) or digests.dtype != np.uint8:
        return False
    blocks = range(len(digests))
    looked_at = blocks if sample is None or sample >= len(blocks) else random.sample(blocks, sample)
    return all(_is_intact(data, digests, block) for block in looked_at)


def spans_match(
    data: memoryview, digests: NDArray[np.uint8], *, starts: NDArray[np.integer], ends: NDArray[np.integer]
) -> bool:
    """Return whether the blocks in which these spans of bytes lie are what was written; reads no other block."""
    some = starts < ends
    first, last = starts[some] // BLOCK_BYTES, (ends[some] - 1) // BLOCK_BYTES
    needed = np.unique(joined_ranges(first.astype(np.int64), last.astype(np.int64) + 1)).tolist()
    if digests.shape != (-(-data.nbytes // BLOCK_BYTES), DIGEST_BYTES) or digests.dtype != np.uint8:
        return False
    return all(block < len(digests) and _is_intact(data, digests, block) for block in needed)


def intact_blocks(data: memoryview, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return for each block that was written whether ``data``, which may have lost its end, still holds it."""
    starts = (number * BLOCK_BYTES for number in range(len(digests)))
    return np.array(
        [
            _digest(data[start : start + BLOCK_BYTES]) == digest.tobytes()
            for start, digest in zip(starts, digests, strict=True)
        ],
        np.bool_,
    )


def _is_intact(data: memoryview, digests: NDArray[np.uint8], block: int) -> bool:
    written: bytes = digests[block].tobytes()
    return _digest(data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]) == written


def _digest(block: memoryview) -> bytes:
    return blake2b(block, digest_size=DIGEST_BYTES).digest()
