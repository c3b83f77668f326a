"""1-bit codes of vectors: what a search looks at when a filter leaves a graph no neighbourhood to walk.

A code is a vector's direction from the segment's centre in one bit per dimension, and two numbers: 56 bytes at 384
dimensions where the vector has 1,536. Scanning codes costs the same whichever rows a filter accepts; the best few are
then compared by their vectors. It knows no files and no filters. The formulas are in ``code_kernels.py``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from . import code_kernels
from .errors import Damaged
from .sections import Array

WORD = 64
_SEED = 7  # of the rotation: one for all segments, so that a search rotates its query once


@dataclass(frozen=True)
class CodedRows:
    """The codes of the ``n`` rows of a segment.

    Attributes:
        codes: u64[n, words + 1].
        centre: f32[d], which was taken from every vector.
    """

    codes: NDArray[np.uint64]
    centre: NDArray[np.float32]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], *, count: int, dimensions: int) -> "CodedRows":
        """Open the sections of ``to_arrays`` in place. Raises Damaged when they do not fit the segment."""
        codes, centre = arrays.get("codes"), arrays.get("codes_centre")
        shape = (count, _width(dimensions) // WORD + 1)
        if codes is None or codes.shape != shape or codes.dtype != np.dtype("<u8"):
            raise Damaged(f"the codes of the segment are missing or not {shape}; restore or rebuild it")
        if centre is None or centre.shape != (dimensions,) or centre.dtype != np.dtype("<f4"):
            raise Damaged("the centre of the segment's codes is missing; restore or rebuild it")
        return cls(codes, centre)

    def to_arrays(self) -> dict[str, Array]:
        return {"codes": self.codes, "codes_centre": self.centre}

    @cached_property
    def factors(self) -> NDArray[np.float32]:
        return self.codes.view(np.float32)

    def candidates(
        self, query: NDArray[np.float32], rows: NDArray[np.int64], *, count: int, l2: bool
    ) -> NDArray[np.int64]:
        """Return ``count`` of ``rows``, or all of them, whose estimated costs are lowest, in no order.

        Args:
            query: f32[d], finite.
        """
        if count >= len(rows):
            return rows
        planes, numbers = self._rounded(query, times=2 if l2 else 1)
        best, costs = np.empty(count, np.int64), np.empty(count, np.float32)
        code_kernels.estimate(self.codes, self.factors, rows, planes, numbers, best, costs)
        return best

    def _rounded(self, query: NDArray[np.float32], *, times: int) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return the query as bits, and the numbers that turn counts of ones into an inner product with signs."""
        rotated = rotated_rows((query - self.centre)[None])[0]
        low = float(rotated.min())
        step = (float(rotated.max()) - low) / (2**code_kernels.QUERY_BITS - 1) or 1.0
        levels = np.rint((rotated - low) / step).astype(np.uint8)
        bits = [np.packbits(levels >> bit & 1, bitorder="little").view("<u8") for bit in range(code_kernels.QUERY_BITS)]
        total = step * float(levels.sum()) + low * len(rotated)
        numbers = np.array([2 * times * step, 2 * times * low, -times * total], np.float32)
        return np.stack(bits), numbers


def encode_rows(
    vectors: Iterable[NDArray[np.float32]], *, count: int, centre: NDArray[np.float32], l2: bool
) -> CodedRows:
    """Encode vectors that come in slices f32[k, d], ``count`` in all.

    Args:
        centre: f32[d], near the mean of the vectors: the nearer, the better the estimates.
    """
    codes, row = np.empty((count, _width(len(centre)) // WORD + 1), "<u8"), 0
    turned_centre = rotated_rows(centre[None])[0]
    for part in vectors:
        code_kernels.encode(rotated_rows(part), turned_centre, l2, codes[row : row + len(part)])
        row += len(part)
    assert row == count, f"{row} vectors came for {count} codes"
    return CodedRows(codes, centre)


def rotated_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors rotated, padded with zeros to a multiple of 64 dimensions."""
    count, dimensions = vectors.shape
    padded = np.zeros((count, _width(dimensions)), np.float32)
    padded[:, :dimensions] = vectors
    code_kernels.rotate(padded, _signs(padded.shape[1]))
    return padded


def _width(dimensions: int) -> int:
    return -(-dimensions // WORD) * WORD


_SIGNS: dict[int, NDArray[np.float32]] = {}


def _signs(width: int) -> NDArray[np.float32]:
    if width not in _SIGNS:
        bits = np.random.default_rng(_SEED).integers(0, 2, (code_kernels.ROUNDS, width))
        _SIGNS[width] = (2 * bits - 1).astype(np.float32)
    return _SIGNS[width]
