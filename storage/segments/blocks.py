"""Checksums of a file's blocks: one pass of hashing serves a check of all of them and one of a few.

A sample notices damage that spreads (a disk that dies, a file written over) in bounded time, however large the file.
"""

import random
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

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
    return all(
        _digest(data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]) == digests[block].tobytes()
        for block in looked_at
    )


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


def _digest(block: memoryview) -> bytes:
    return blake2b(block, digest_size=DIGEST_BYTES).digest()
