"""How the chunks of many documents become embed batches. Pure arithmetic on counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# A batch should be about a second of work: long enough to pay for its transactions, short enough to show progress, to
# be handed back in time, and to let others have their turn. Of the fast models the transactions are most of it.
PART_CHUNKS = 256
PART_CHUNKS_OF = {"minilm": 64, "static": 512, "hash": 512}  # by provider


def part_chunks_of(model: str) -> int:
    """Return how many chunks make an embed batch of this model."""
    provider = "hash" if model.startswith("hash") else model.partition("/")[0]
    return PART_CHUNKS_OF.get(provider, PART_CHUNKS)


@dataclass(frozen=True)
class Slice:
    """Chunks ``start`` to ``stop`` of document number ``document``."""

    document: int
    start: int
    stop: int


Part = list[Slice]  # becomes one embed batch
Group = list[Part]  # is indexed in one piece


def pack(counts: Sequence[int], *, limit: int) -> list[Group]:
    """Divide documents with these chunk counts, in order, into groups of parts of at most ``limit`` chunks.

    Parts end between documents. A document with more chunks than ``limit`` becomes a group of its own with several
    parts of about equal size, so that it appears in one piece. Documents without chunks are in no group.
    """
    groups: list[Group] = []
    part: Part = []
    room = limit
    for document, count in enumerate(counts):
        if not count:
            continue
        if count > limit:
            groups.append(_divided(document, count, limit=limit))
            continue
        if count > room:
            groups.append([part])
            part, room = [], limit
        part.append(Slice(document, 0, count))
        room -= count
    if part:
        groups.append([part])
    return groups


def _divided(document: int, count: int, *, limit: int) -> Group:
    parts = -(-count // limit)
    bounds = [count * number // parts for number in range(parts + 1)]
    return [[Slice(document, start, stop)] for start, stop in pairwise(bounds)]
