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

M = 16
EF_CONSTRUCTION = 200
SEED = 100
_SPACES = {"cosine": "ip", "dot": "ip", "l2": "l2"}  # cosine vectors have unit length already

Vectors = NDArray[np.float32]


def build_graph(
    target: Path,
    *,
    vectors: Iterable[Vectors],
    count: int,
    dimensions: int,
    metric: str,
    threads: int,
    base: Path | None = None,
    base_count: int = 0,
) -> None:
    """Build a graph of ``count`` rows and save it to ``target``; the label of a record is its row.

    Args:
        vectors: slices f32[k, d] of the rows from ``base_count`` on, in order; taken one after the other.
        base: a saved graph of the first ``base_count`` rows, to go on from. It must have been compared with its
            checksum: hnswlib follows whatever links it finds.

    Raises:
        Damaged: the file was not written whole (a full disk).
    """
    index = _opened(base, base_count=base_count, count=count, space=_SPACES[metric], dimensions=dimensions)
    index.set_num_threads(threads)
    row = base_count
    for part in vectors:
        index.add_items(part, np.arange(row, row + len(part)))
        row += len(part)
    assert row == count, f"{row} rows came for a graph of {count}"
    index.save_index(str(target))
    _check_file(target, count=count)


def _opened(base: Path | None, *, base_count: int, count: int, space: str, dimensions: int) -> Any:
    index = hnswlib.Index(space, dimensions)
    if base is None:
        index.init_index(count, M=M, ef_construction=EF_CONSTRUCTION, random_seed=SEED)
        return index
    index.load_index(str(base), max_elements=count)
    if index.get_current_count() != base_count:
        raise Damaged(f"{base.name} has {index.get_current_count()} records where its segment has {base_count} rows")
    return index


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
