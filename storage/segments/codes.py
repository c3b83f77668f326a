"""1-bit codes of vectors: what a search looks at when a filter leaves a graph no neighbourhood to walk.

A code is a vector's direction from the segment's centre in one bit per dimension, and two numbers: 64 bytes at 384
dimensions where the vector has 1,536. Scanning codes costs the same whichever rows a filter accepts; the best few are
then compared by their vectors. It knows no files and no filters. The formulas are in ``code_kernels.py``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import code_kernels, kernels
from ..errors import Damaged
from .sections import Array

WORD = 64
HEADS_KEPT = 64  # one of so many rows is looked at again by its whole code
WHOLE_PER_CANDIDATE = 8  # or so many for each row that is wanted, where that is more
SPARSE = 6  # times as many rows as are marked: then those are looked at one by one
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
            rows: ascending.
        """
        if count >= len(rows):
            return rows
        asked = self._encoded(query, l2=l2)
        if kept := _kept(count, among=len(rows)):
            limit = self._limit(rows[:: _step(len(rows))], asked, share=kept / len(rows))
            promising = self._heads(rows, asked, limit=limit)[0]
            rows = promising if len(promising) >= count else rows
        return self._best(rows, asked, count=count)

    def candidates_marked(
        self, query: NDArray[np.float32], mask: NDArray[np.bool_], *, marked: int, count: int, l2: bool
    ) -> NDArray[np.int64]:
        """Return what `candidates` does of the rows where ``mask`` bool[n] is set, ``marked`` in all."""
        kept = _kept(count, among=marked)
        if kept and marked * SPARSE >= len(mask):
            asked, best = self._encoded(query, l2=l2), np.empty(marked, np.int64)
            sample = np.empty(SAMPLED, np.int64)
            sample = sample[: kernels.list_each(mask, _step(marked), sample)]
            limit = self._limit(sample, asked, share=kept / marked)
            size = code_kernels.estimate_marked(
                self.heads, self._factors[0], mask, asked.head_planes, asked.numbers, limit, best
            )
            if size >= count:
                return self._best(best[:size], asked, count=count)
        rows = np.empty(marked, np.int64)
        kernels.list_set(mask, 0, len(mask), rows)
        return self.candidates(query, rows, count=count, l2=l2)

    def _limit(self, sample: NDArray[np.int64], asked: "_EncodedQuery", *, share: float) -> np.float32:
        """Return the cost up to which about ``share`` of all rows are, by the heads of a sample of them."""
        costs = self._heads(sample, asked, limit=np.float32(np.inf))[1]
        place = min(len(costs) - 1, 1 + int(len(costs) * share))
        return np.float32(np.partition(costs, place)[place]) if len(costs) else np.float32(np.inf)

    def _heads(
        self, rows: NDArray[np.int64], asked: "_EncodedQuery", *, limit: np.float32
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return those of ``rows`` whose heads let expect costs up to ``limit``, and the costs."""
        best, costs = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
        size = code_kernels.estimate_heads(
            self.heads, self._factors[0], rows, asked.head_planes, asked.numbers, limit, best, costs
        )
        return best[:size], costs[:size]

    def _best(self, rows: NDArray[np.int64], asked: "_EncodedQuery", *, count: int) -> NDArray[np.int64]:
        best, costs = np.empty(count, np.int64), np.empty(count, np.float32)
        planes, factors = (asked.head_planes, asked.tail_planes), self._factors
        code_kernels.estimate(self.heads, factors[0], self.tails, factors[1], rows, *planes, asked.numbers, best, costs)
        return best

    def _encoded(self, query: NDArray[np.float32], *, l2: bool) -> "_EncodedQuery":
        head, tail = self.heads.shape[1] - 1, self.tails.shape[1] - 1
        asked = _EncodedQuery(_planes(head), _planes(tail), np.empty(4, np.float32))
        rotated = rotated_rows((query - self.centre)[None])[0]
        times = np.float32(2 if l2 else 1)
        code_kernels.encode_query(rotated, times, head, asked.head_planes, asked.tail_planes, asked.numbers)
        return asked


class _EncodedQuery(NamedTuple):
    """A query as bits, and the numbers that turn counts of ones into costs; see ``code_kernels.encode_query``."""

    head_planes: NDArray[np.uint64]
    tail_planes: NDArray[np.uint64]
    numbers: NDArray[np.float32]


def _planes(words: int) -> NDArray[np.uint64]:
    """Return room for the bits of a query, up to a multiple of `LANES` where the factors behind a code fill it."""
    filled = -(-words // code_kernels.LANES) * code_kernels.LANES
    return np.zeros((code_kernels.QUERY_BITS + 1, filled if filled == words + 1 else words), np.uint64)


def _kept(count: int, *, among: int) -> int:
    """Return how many rows to look at again by their whole codes; 0: all of them."""
    kept = max(WHOLE_PER_CANDIDATE * count, among // HEADS_KEPT)
    return kept if kept < among // 8 else 0


def _step(rows: int) -> int:
    """Return which of so many rows are a sample: each such."""
    return -(-rows // SAMPLED)


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
