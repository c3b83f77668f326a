"""The payload of a large segment, texts and records, read from its file when a hit shows them, and not mapped.

What is mapped and was looked at stays resident: after many searches a query process would hold all texts of all its
tenants. What is read is in the system's page cache only, which every process shares and which gives way when memory is
short.
"""

import os
import weakref
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import Damaged, NotFound

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class Payload:
    """Byte sections of one file. Safe between threads; the file stays open as long as this lives.

    Args:
        places: of each section, bytes from the start of the file.
    """

    def __init__(self, path: Path, *, places: Mapping[str, int]) -> None:
        self._places = places
        self._name = path.name
        self._descriptor = open_for_reading(path)
        self._size_bytes = os.fstat(self._descriptor).st_size
        weakref.finalize(self, os.close, self._descriptor)

    def place(self, section: str) -> tuple[int, int]:
        """Return the descriptor of the file, open as long as this lives, and where in it the section begins."""
        return self._descriptor, self._places[section]

    def read(self, spans: Sequence[tuple[str, NDArray[np.int64], NDArray[np.int64]]]) -> list[bytes]:
        """Return the bytes from ``starts`` to ``ends``, i64[n], within each section, all of them read in one go.

        Raises:
            Damaged: the file ends before they do, or they lie where nothing can.
        """
        sizes = np.concatenate([ends - starts for _, starts, ends in spans])
        offsets = np.concatenate([starts + self._places[section] for section, starts, _ in spans])
        ends = sizes.cumsum()
        total = int(ends[-1])
        if not 0 <= total <= self._size_bytes:  # no room may be made of what offsets tell that have rotted
            raise Damaged(
                f"{self._name}: a text or a record does not lie where its place is told; restore or rebuild it"
            )
        buffer = np.empty(total, np.uint8)
        if not self._read_cached(offsets, sizes, buffer) and (
            kernels.read_spans(self._descriptor, offsets, sizes, buffer) == kernels.BROKEN
        ):
            told = "is shorter than when it was opened, or a text does not lie where its place is told"
            raise Damaged(f"{self._name} {told}; restore or rebuild the segment")
        data = buffer.tobytes()
        return [data[start:end] for start, end in pairwise([0, *ends.tolist()])]

    def _read_cached(self, offsets: NDArray[np.int64], sizes: NDArray[np.int64], buffer: NDArray[np.uint8]) -> bool:
        """Read the spans if all are in memory, as they mostly are; returns whether they were."""
        if _NOWAIT is None:
            return False
        place = np.empty(2, np.uint64)
        found = kernels.read_cached_spans(self._descriptor, offsets, sizes, buffer, _NOWAIT, place)
        return bool(found != kernels.BROKEN)


def open_for_reading(path: Path) -> int:
    """Return a descriptor of the file. Raises NotFound."""
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise NotFound(f"{path.name} does not exist") from error
