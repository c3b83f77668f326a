"""Documents become embed batches at document boundaries, and large documents stay in one group."""

import random

from penstock.workers.packing import Slice, pack


def test_small_documents_share_a_part_and_end_at_its_limit():
    assert pack([3, 4, 2, 5], limit=8) == [[[Slice(0, 0, 3), Slice(1, 0, 4)]], [[Slice(2, 0, 2), Slice(3, 0, 5)]]]


def test_a_document_above_the_limit_is_a_group_of_its_own_with_equal_parts():
    assert pack([2, 10, 2], limit=4) == [
        [[Slice(1, 0, 3)], [Slice(1, 3, 6)], [Slice(1, 6, 10)]],
        [[Slice(0, 0, 2), Slice(2, 0, 2)]],
    ]


def test_documents_without_chunks_are_in_no_group():
    assert pack([0, 0], limit=4) == []
    assert pack([0, 1, 0], limit=4) == [[[Slice(1, 0, 1)]]]


def test_every_chunk_is_in_exactly_one_part_and_no_part_exceeds_the_limit():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    source = random.Random(seed)
    for _ in range(200):
        limit = source.randint(1, 20)
        counts = [source.choice([0, 1, 2, 5, 19, 20, 21, 100]) for _ in range(source.randint(0, 30))]

        groups = pack(counts, limit=limit)

        parts = [part for group in groups for part in group]
        assert all(sum(piece.stop - piece.start for piece in part) <= limit for part in parts)
        chunks = [
            (piece.document, chunk) for part in parts for piece in part for chunk in range(piece.start, piece.stop)
        ]
        assert sorted(chunks) == [(number, chunk) for number, count in enumerate(counts) for chunk in range(count)]
        for group in groups:
            assert len(group) == 1 or len({piece.document for part in group for piece in part}) == 1
