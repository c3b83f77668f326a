"""Building graphs with hnswlib: the only module that imports it, for the index and maintenance roles only.

hnswlib holds the GIL while it loads and saves, checks nothing it writes, and can leave rows that no search finds. So
this module belongs in a process of its own, and measures the file it saved; ``repairing.py`` looks for lost rows.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged
from ..segments.graph_files import HEADER_BYTES, graph_shape, upper_places
from .twins import append_twins, copy_without_twins, twins_are_last

M = 16
EF_CONSTRUCTION = 200
SEED = 100
_SPACES = {"cosine": "ip", "dot": "ip", "l2": "l2"}  # cosine vectors have unit length already

Vectors = NDArray[np.float32]


def build_graph(
    target: Path,
    *,
    vectors: Iterable[Vectors],
    first: NDArray[np.int64],
    dimensions: int,
    metric: str,
    threads: int,
    base: Path | None = None,
    base_count: int = 0,
) -> int:
    """Build a graph of ``len(first)`` rows and save it to ``target``; the label of a record is its row.

    Returns how many rows were inserted: all but twins, which are appended (``twins.py``).

    Args:
        first: of each row, the first one with the same vector.
        vectors: slices f32[k, d] of the rows from ``base_count`` on, in order; taken one after the other.
        base: a saved graph of the first ``base_count`` rows, to go on from. It must have been compared with its
            checksum: hnswlib follows whatever links it finds.

    Raises:
        Damaged: the file was not written whole (a full disk).
    """
    count = len(first)
    twins = np.flatnonzero(first[:base_count] != np.arange(base_count))
    if base is not None and not twins_are_last(base, twins):  # it was built when they were inserted
        first = np.where(np.arange(count) < base_count, np.arange(count), first)
        twins = twins[:0]
    own, already = first == np.arange(count), base_count - len(twins)
    index = hnswlib.Index(_SPACES[metric], dimensions)
    if base is None:
        index.init_index(count, M=M, ef_construction=EF_CONSTRUCTION, random_seed=SEED)
    else:
        _load(index, base, inserted=already, count=count, copy=target.with_suffix(".base"))
    if index.get_current_count() != already:
        raise Damaged(f"{base} has {index.get_current_count()} records where its segment has {already} different rows")
    index.set_num_threads(threads)
    row = base_count
    for part in vectors:
        rows = row + np.flatnonzero(own[row : row + len(part)])
        if len(rows):
            index.add_items(part[rows - row], rows)
        row += len(part)
    assert row == count, f"{row} rows came for a graph of {count}"
    index.save_index(str(target))
    inserted = int(np.count_nonzero(own))
    _check_file(target, count=inserted)
    append_twins(target, first=first, dimensions=dimensions)
    _check_file(target, count=count)
    return inserted - already


def _load(index: Any, base: Path, *, inserted: int, count: int, copy: Path) -> None:
    if inserted == graph_shape(base)[0]:
        index.load_index(str(base), max_elements=count)
        return
    try:
        copy_without_twins(base, copy, inserted=inserted)
        index.load_index(str(copy), max_elements=count)
    finally:
        copy.unlink(missing_ok=True)


def _check_file(target: Path, *, count: int) -> None:
    """Check that the file is as long as its header and its last list say: hnswlib reports no failed write."""
    size_bytes = target.stat().st_size
    if size_bytes < HEADER_BYTES:
        raise Damaged("the new graph was not written: is the disk full?")
    saved, record_bytes = graph_shape(target)
    if saved != count or size_bytes < HEADER_BYTES + count * (record_bytes + 4):
        raise Damaged("the new graph was not written whole: is the disk full?")
    try:
        upper_places(target, count=count, record_bytes=record_bytes)
    except (IndexError, ValueError) as error:
        raise Damaged("the new graph was not written whole: is the disk full?") from error
