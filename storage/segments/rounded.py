"""int8 records of a graph: what a walk goes through where memory is dear, a third of the float32 records.

A record is that of ``graph_files.py`` with two float32 and ``d`` int8 in the place of the vector, in the same order.
The float32 vectors stay in the graph's file, from which the best few are read, not mapped: what is not mapped takes no
room in the process. It chooses nothing and searches nothing.
"""

import os
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import Damaged
from .graph_files import HEADER_BYTES, GraphView
from .payloads import open_for_reading
from .sections import Array

SECTION = "int8_records"
_LEVELS = 127
_AT_ONCE = 65_536


class RoundedGraph:
    """The int8 records of a graph and its float32 file. Safe between threads.

    Args:
        records: u32[n * words of a record].
        path: of the file that ``view`` maps.
    """

    def __init__(self, records: NDArray[np.uint32], *, view: GraphView, path: Path) -> None:
        self._view = view
        self._descriptor = open_for_reading(path)
        weakref.finalize(self, os.close, self._descriptor)
        stride = _stride(view.max_m0, view.dimensions)
        self.graph = view.graph_of(records.reshape(-1), stride=stride, vector_at=1 + view.max_m0)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], *, view: GraphView, path: Path) -> "RoundedGraph | None":
        """Open the section of ``round_records`` in place, None where there is none. Raises Damaged."""
        records = arrays.get(SECTION)
        if records is None:
            return None
        shape = (view.count, _stride(view.max_m0, view.dimensions))
        if records.shape != shape or records.dtype != np.dtype("<u4"):
            raise Damaged(f"the int8 records of {path.name} are not {shape}; restore or rebuild the segment")
        return cls(records, view=view, path=path)

    @staticmethod
    def query(query: NDArray[np.float32], *, l2: bool) -> tuple[NDArray[np.int8], np.float32]:
        """Return the query as the walk takes it."""
        codes, scale = _rounded(query[None])
        return codes[0], np.float32(scale[0] * (2 if l2 else 1))

    def compare(
        self, query: NDArray[np.float32], records: NDArray[np.int64], *, l2: bool, costs: NDArray[np.float32]
    ) -> None:
        """Compute the costs of these records by their float32 vectors. Raises Damaged when the file lost its end."""
        view = self._view
        offsets = records * (4 * view.stride) + (HEADER_BYTES + 4 * view.vector_at)
        if kernels.compare(self._descriptor, offsets, query, l2, costs) == kernels.BROKEN:
            raise Damaged("a graph is shorter than when it was opened; restore or rebuild the segment")


def round_records(view: GraphView, *, l2: bool) -> dict[str, Array]:
    """Return the section to store: u32[n, words], for each record its links, factor and addend, and int8 codes."""
    links = 1 + view.max_m0
    records = np.zeros((view.count, _stride(view.max_m0, view.dimensions)), "<u4")
    level0 = view.words.reshape(view.count, view.stride)
    for first in range(0, view.count, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        vectors = view.vectors[part]
        codes, scale = _rounded(vectors)
        records[part, :links] = level0[part, :links]
        records[part, links] = scale.view(np.uint32)
        if l2:
            records[part, links + 1] = np.einsum("ij,ij->i", vectors, vectors).view(np.uint32)
        records[part].view(np.int8)[:, 4 * (links + 2) : 4 * (links + 2) + view.dimensions] = codes
    return {SECTION: records}


def _stride(max_m0: int, dimensions: int) -> int:
    return 1 + max_m0 + 2 + -(-dimensions // 4)


def _rounded(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8[n, d] and f32[n] whose products are the vectors, nearly."""
    scale = np.abs(vectors).max(axis=1) / np.float32(_LEVELS)
    safe = np.where(scale > 0, scale, np.float32(1))
    return np.rint(vectors / safe[:, None]).astype(np.int8), scale.astype(np.float32)
