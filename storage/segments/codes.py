"""1-bit codes of vectors: what a search looks at when a filter leaves a graph no neighbourhood to walk.

A code is a vector's direction from the segment's centre in one bit per dimension, and two numbers: 64 bytes at 384
dimensions where the vector has 1,536. Scanning codes costs the same whichever rows a filter accepts; the best few are
then compared by their vectors. It knows no files and no filters. The formulas are in ``code_kernels.py``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .. import code_kernels
from ..errors import Damaged
from .sections import Array

WORD = 64
HEADS_KEPT = 32  # one of so many rows is looked at again by its whole code
WHOLE_PER_CANDIDATE = 8  # or so many for each row that is wanted, where that is more
SAMPLED = 2_048  # rows whose heads say which cost is a low one
_SEED = 7  # of the rotation: one for all segments, so that a search rotates its query once


@dataclass(frozen=True)
class CodedRows:
    """The codes of the ``n`` rows of a segment, in two parts, so that a scan of many rows reads half of their bytes.

    Attributes:
        heads: u64[n, h + 1]; tails: u64[n, t + 1]; see ``code_kernels.encode``.
        centre: f32[d], which was taken from every vector.
    """

    heads: NDArray[np.uint64]
    tails: NDArray[np.uint64]
    centre: NDArray[np.float32]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], *, count: int, dimensions: int) -> "CodedRows":
        """Open the sections of ``to_arrays`` in place. Raises Damaged when they do not fit the segment."""
        head, tail = words_of(dimensions)
        needed = {
            "code_heads": ((count, head + 1), "<u8"),
            "code_tails": ((count, tail + 1), "<u8"),
            "codes_centre": ((dimensions,), "<f4"),
        }
        for name, (shape, dtype) in needed.items():
            found = arrays.get(name)
            if found is None or found.shape != shape or found.dtype != np.dtype(dtype):
                raise Damaged(f"the section {name!r} of the segment is not {dtype}{shape}; restore or rebuild it")
        return cls(*(arrays[name] for name in needed))

    def to_arrays(self) -> dict[str, Array]:
        return {"code_heads": self.heads, "code_tails": self.tails, "codes_centre": self.centre}

    @cached_property
    def _factors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.heads.view(np.float32), self.tails.view(np.float32)

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
        kept = max(WHOLE_PER_CANDIDATE * count, len(rows) // HEADS_KEPT)
        if kept < len(rows) // 8:
            promising = self._promising(rows, planes, numbers, kept=kept)
            rows = promising if len(promising) >= count else rows
        best, costs = np.empty(count, np.int64), np.empty(count, np.float32)
        head_factors, tail_factors = self._factors
        code_kernels.estimate(self.heads, head_factors, self.tails, tail_factors, rows, planes, numbers, best, costs)
        return best

    def _promising(
        self, rows: NDArray[np.int64], planes: NDArray[np.uint64], numbers: NDArray[np.float32], *, kept: int
    ) -> NDArray[np.int64]:
        """Return about ``kept`` of ``rows``, ascending, by their heads: a sample says up to which cost."""

        def heads_of(some: NDArray[np.int64], limit: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            best, costs = np.empty(len(some), np.int64), np.empty(len(some), np.float32)
            wanted = np.float32(limit)
            size = code_kernels.estimate_heads(self.heads, self._factors[0], some, planes, numbers, wanted, best, costs)
            return best[:size], costs[:size]

        _, sample = heads_of(rows[:: max(1, len(rows) // SAMPLED)], np.inf)
        place = min(len(sample) - 1, 1 + int(len(sample) * kept / len(rows)))
        return heads_of(rows, float(np.partition(sample, place)[place]))[0]

    def _rounded(self, query: NDArray[np.float32], *, times: int) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return the query as bits, and the numbers that turn counts of ones into an inner product with signs."""
        rotated = rotated_rows((query - self.centre)[None])[0]
        low = float(rotated.min())
        step = (float(rotated.max()) - low) / (2**code_kernels.QUERY_BITS - 1) or 1.0
        levels = np.rint((rotated - low) / step).astype(np.uint8)
        bits = [np.packbits(levels >> bit & 1, bitorder="little").view("<u8") for bit in range(code_kernels.QUERY_BITS)]
        head = WORD * (self.heads.shape[1] - 1)
        totals = [step * float(levels[:end].sum()) + low * end for end in (head, len(rotated))]
        numbers = [2 * times * step, 2 * times * low, *(-times * total for total in totals)]
        return np.stack(bits), np.array(numbers, np.float32)


def encode_rows(
    vectors: Iterable[NDArray[np.float32]], *, count: int, centre: NDArray[np.float32], l2: bool
) -> CodedRows:
    """Encode vectors that come in slices f32[k, d], ``count`` in all.

    Args:
        centre: f32[d], near the mean of the vectors: the nearer, the better the estimates.
    """
    head, tail = words_of(len(centre))
    heads, tails = np.empty((count, head + 1), "<u8"), np.empty((count, tail + 1), "<u8")
    turned_centre, row = rotated_rows(centre[None])[0], 0
    for part in vectors:
        rows = slice(row, row + len(part))
        code_kernels.encode(rotated_rows(part), turned_centre, l2, heads[rows], tails[rows])
        row += len(part)
    assert row == count, f"{row} vectors came for {count} codes"
    return CodedRows(heads, tails, centre)


def words_of(dimensions: int) -> tuple[int, int]:
    """Return how many words of signs the head and the tail of a code have."""
    words = _width(dimensions) // WORD
    return words - words // 2, words // 2


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
