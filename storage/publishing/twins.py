"""Twins: rows whose vector an earlier row has too, bit for bit. Boilerplate, padding, the same page in many documents.

hnswlib must not get them. To each the others are nearest, so all their links lead to each other and none out: an
island, in which a search that comes by is caught with a full list, and which others do not reach. So only the first of
them is inserted. The others are appended to the saved file, as the last records of level 0, and linked as a tree below
the first: who comes to that one finds them, and walks past them along its links. Before such a graph is extended they
are taken off again.

It edits files that nobody else has. hnswlib loads one with twins like any other.
"""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged
from ..segments.graph_files import HEADER_BYTES, graph_shape, record_map, write_counts

CHILDREN = 8  # of a twin in the tree
_AT_ONCE = 16_384
_DIGEST_BYTES = 16
_COPIED_BYTES = 16 << 20

Vectors = NDArray[np.float32]
Longs = NDArray[np.int64]


def first_rows(vectors: Iterable[Vectors], *, count: int) -> Longs:
    """Return, for each of ``count`` rows, the first row with the same vector: i64[count].

    Args:
        vectors: slices f32[k, d] of the rows, in order.
    """
    digests, row = np.empty((count, 2), np.uint64), 0
    for part in vectors:
        told = b"".join([blake2b(each, digest_size=_DIGEST_BYTES).digest() for each in np.ascontiguousarray(part)])
        digests[row : row + len(part)] = np.frombuffer(told, np.uint64).reshape(-1, 2)
        row += len(part)
    assert row == count, f"{row} rows came where {count} were announced"
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal ones stay in the order of rows
    changes = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
    first = np.empty(count, np.int64)
    first[order] = np.repeat(order[starts], np.diff(np.append(starts, count)))
    return first


def with_twins(first: Longs) -> Longs:
    """Return the rows that have twins, ascending."""
    return np.unique(first[first != np.arange(len(first))])


def append_twins(path: Path, *, first: Longs, dimensions: int) -> None:
    """Add to a saved graph what was not inserted into it.

    Args:
        first: what `first_rows` says of all rows, those of twins too.
    """
    twins = np.flatnonzero(first != np.arange(len(first)))
    if not len(twins):
        return
    inserted, record_bytes = graph_shape(path)
    record_of = np.empty(len(first), np.int64)
    record_of[record_map(path, count=inserted, record_bytes=record_bytes)] = np.arange(inserted)
    record_of[twins] = inserted + np.arange(len(twins))
    _append(path, rows=twins, like=record_of[first[twins]])
    words = np.memmap(path, "<u4", "r+", HEADER_BYTES, (len(first), record_bytes // 4))
    tree = _Tree(words, dimensions=dimensions)
    twins = twins[np.lexsort((twins, first[twins]))]
    above = _parents(twins, first[twins])
    for child, parent in zip(record_of[twins].tolist(), record_of[above].tolist(), strict=True):
        tree.link(parent, child)
        tree.link(child, parent)
    words.flush()


def twins_are_last(path: Path, twins: Longs) -> bool:
    """Return whether these rows are the last records of a graph, as `append_twins` leaves them."""
    count, record_bytes = graph_shape(path)
    return np.array_equal(record_map(path, count=count, record_bytes=record_bytes)[count - len(twins) :], twins)


def copy_without_twins(base: Path, target: Path, *, inserted: int) -> None:
    """Write the graph as it was before `append_twins`, but for links that had to give way: its first records."""
    count, record_bytes = graph_shape(base)
    with base.open("rb") as source, target.open("wb") as file:
        left = HEADER_BYTES + inserted * record_bytes
        while left:
            part = source.read(min(left, _COPIED_BYTES))
            if not part:
                raise Damaged(f"{base.name} is truncated")
            file.write(part)
            left -= len(part)
        source.seek(HEADER_BYTES + count * record_bytes)
        upper = source.read()
        file.write(upper[: len(upper) - 4 * (count - inserted)])
        write_counts(file, inserted)
    words = np.memmap(target, "<u4", "r+", HEADER_BYTES, (inserted, record_bytes // 4))
    for at in range(0, inserted, _AT_ONCE):
        _drop_links(words[at : at + _AT_ONCE], to=inserted)
    words.flush()


def _drop_links(words: NDArray[np.uint32], *, to: int) -> None:
    """Take out what leads to the records from ``to`` on."""
    most = int((words[:, 0] & 0xFFFF).max())
    counts, links = words[:, 0] & 0xFFFF, words[:, 1 : 1 + most]
    leads = (links >= to) & (np.arange(most) < counts[:, None])
    for record in np.flatnonzero(leads.any(axis=1)).tolist():
        own = links[record, : counts[record]]
        kept = own[own < to]
        words[record, 1 : 1 + len(kept)] = kept
        words[record, 0] -= len(own) - len(kept)


def _append(path: Path, *, rows: Longs, like: Longs) -> None:
    """Append records of these rows without links, each with the vector of the record that it is ``like``."""
    count, record_bytes = graph_shape(path)
    end = HEADER_BYTES + count * record_bytes
    with path.open("r+b") as file:
        file.seek(end)
        upper = file.read()
        file.seek(end)
        records = np.memmap(path, "|u1", "r", HEADER_BYTES, (count, record_bytes))
        for at in range(0, len(rows), _AT_ONCE):
            copies = records[like[at : at + _AT_ONCE]]
            copies[:, :4] = 0
            copies[:, -8:] = rows[at : at + _AT_ONCE].astype("<u8").view("|u1").reshape(-1, 8)
            file.write(copies.tobytes())
        file.write(upper)
        file.write(bytes(4 * len(rows)))  # none of them is on an upper level
        write_counts(file, count + len(rows))


def _parents(twins: Longs, first: Longs) -> Longs:
    """Return the row above each twin; both arguments ordered by ``first``, then by row."""
    starts = np.flatnonzero(np.append(True, first[1:] != first[:-1]))
    lengths = np.diff(np.append(starts, len(twins)))
    rank = np.arange(len(twins)) - np.repeat(starts, lengths)  # among the twins of one vector; later ones come behind
    above = twins[np.repeat(starts, lengths) + np.maximum(rank - 1, 0) // CHILDREN]
    return np.where(rank == 0, first, above)


class _Tree:
    """Links of level 0: ``words`` u32[count, stride], writable."""

    def __init__(self, words: NDArray[np.uint32], *, dimensions: int) -> None:
        self._words = words
        self._most = words.shape[1] - 1 - dimensions - 2
        self._vectors = words.view("<f4")[:, 1 + self._most : 1 + self._most + dimensions]

    def link(self, record: int, target: int) -> None:
        """See to it that a link leads from one to the other; with no room left, in the place of the farthest."""
        links = int(self._words[record, 0] & 0xFFFF)
        targets = self._words[record, 1 : 1 + links]
        if (targets == target).any():
            return
        if links < self._most:
            slot = links
            self._words[record, 0] += 1
        else:
            away = self._vectors[targets] - self._vectors[record]
            slot = int(np.argmax(np.einsum("ij,ij->i", away, away)))
        self._words[record, 1 + slot] = target
