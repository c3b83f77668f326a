"""Building graphs with hnswlib: the only module that imports it, for the index and maintenance roles only.

hnswlib holds the GIL while it loads and saves, checks nothing it writes, and can leave rows that no search finds. So
this module belongs in a process of its own, measures the file it saved, and probes the graph before anyone may see it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
from numpy.typing import NDArray

from .errors import Damaged
from .graph_files import HEADER_BYTES, graph_shape, upper_places

M = 16
EF_CONSTRUCTION = 200
EF_PROBE = 200
SEED = 100
PROBED_ROWS = 500
MISSED_SHARE_MAX = 0.005  # of the probed rows, after the repair
_NEIGHBOURS = 10
_SPACES = {"cosine": "ip", "dot": "ip", "l2": "l2"}  # cosine vectors have unit length already
_TOLERANCE = 1e-4

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
        Damaged: rows cannot be found again even after a repair, or the file was not written whole (a full disk).
    """
    index = _opened(base, base_count=base_count, count=count, space=_SPACES[metric], dimensions=dimensions)
    index.set_num_threads(threads)
    row = base_count
    for part in vectors:
        index.add_items(part, np.arange(row, row + len(part)))
        row += len(part)
    assert row == count, f"{row} rows came for a graph of {count}"
    _probe(index, first_row=base_count, count=count)
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


def _probe(index: Any, *, first_row: int, count: int) -> None:
    """Search for a sample of rows by their own vectors; insert again the new ones that are not found."""
    sample = np.random.default_rng(count)
    new, probed = count - first_row, min(PROBED_ROWS, count)
    rows = np.union1d(
        first_row + sample.choice(new, min(probed, new), replace=False), sample.choice(count, probed, replace=False)
    )
    if not len(_missed(index, rows)):
        return
    lost = _missed(index, np.union1d(rows, np.arange(first_row, count)))
    index.add_items(index.get_items(lost, return_type="numpy"), lost)
    missed = _missed(index, np.union1d(rows, lost))
    if len(missed) > MISSED_SHARE_MAX * len(rows):
        raise Damaged(f"{len(missed)} of {len(rows)} probed rows cannot be found in the new graph: it is refused")


def _missed(index: Any, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows that a search by their own vector does not find although they are near enough."""
    vectors = np.asarray(index.get_items(rows, return_type="numpy"), np.float32)
    index.set_ef(EF_PROBE)
    labels, distances = _nearest(index, vectors)
    own = 1 - np.einsum("ij,ij->i", vectors, vectors) if index.space == "ip" else np.zeros(len(rows), np.float32)
    # Rows with the same vector, or longer ones where the product counts, may rightly fill all places.
    crowded_out = distances[:, -1] <= own + _TOLERANCE * np.maximum(1, np.abs(own))
    found = (labels == rows[:, None].astype(labels.dtype)).any(axis=1)
    missed: NDArray[np.int64] = rows[~(found | crowded_out)]
    return missed


def _nearest(index: Any, vectors: Vectors) -> tuple[NDArray[np.uint64], Vectors]:
    neighbours = min(_NEIGHBOURS, index.get_current_count())
    try:
        labels, distances = index.knn_query(vectors, k=neighbours)
    except RuntimeError:  # fewer than k could be reached from somewhere
        labels, distances = index.knn_query(vectors, k=1)
    return labels, distances


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
