"""The container file: what was written is read, or refused by name."""

import json
import random
import struct
from hashlib import blake2b

import numpy as np
import pytest

from penstock.storage.errors import Damaged, NotFound, Unsupported
from penstock.storage.segments import blocks
from penstock.storage.segments.sections import ALIGNMENT, FORMAT, open_sections, write_sections

from ..storage_samples import sections_of

ARRAYS = {
    "bytes": np.arange(7, dtype="u1"),
    "vectors": np.linspace(0, 1, 24, dtype="<f4").reshape(4, 6),
    "empty": np.empty((0, 3), "<f8"),
    "ids": np.array([1, 2**63], "<u8"),
    "signed": np.array([-1, 5], "<i4"),
}


def container(kind: str = "sample", **meta: object) -> bytes:
    return b"".join(write_sections(kind, meta=meta, arrays=ARRAYS))


def test_sections_are_read_as_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(container(model="hash"))

    sections = open_sections(path, kind="sample")
    sections.verify()
    assert sections.meta == {"model": "hash"}
    assert list(sections.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert sections.arrays[name].dtype == array.dtype
        assert np.array_equal(sections.arrays[name], array)


def test_every_section_lies_on_a_cache_line_of_the_map(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(container())

    for array in open_sections(path, kind="sample").arrays.values():
        assert not array.size or array.__array_interface__["data"][0] % ALIGNMENT == 0


def test_what_is_read_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        sections_of(container(), kind="sample").arrays["ids"][0] = 1


def test_a_contiguous_array_is_not_copied_when_written():
    array = np.ones(1_000, "<f4")

    parts = write_sections("sample", meta={}, arrays={"array": array})

    assert any(isinstance(part, memoryview) and np.shares_memory(np.asarray(part), array) for part in parts)


def test_an_array_with_gaps_is_written_in_order():
    gapped = np.arange(20, dtype="<u4").reshape(4, 5)[:, ::2]

    data = b"".join(write_sections("sample", meta={}, arrays={"gapped": gapped}))

    assert np.array_equal(sections_of(data, kind="sample").arrays["gapped"], gapped)


def test_a_dtype_of_another_machine_is_refused():
    with pytest.raises(TypeError, match="'wrong'"):
        write_sections("sample", meta={}, arrays={"wrong": np.zeros(2, ">u4")})


def test_a_file_of_another_kind_is_damaged():
    with pytest.raises(Damaged, match="'sample' file where a 'segment' file is needed"):
        sections_of(container(), kind="segment", name="x.segment")


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        open_sections(tmp_path / "none", kind="sample")


def test_a_newer_format_is_unsupported_and_not_damaged():
    header = json.dumps({"anything": "new"}).encode()
    start = struct.pack("<8sII", b"PENSTOCK", FORMAT + 1, len(header))
    newer = start + blake2b(start + header, digest_size=16).digest() + header

    with pytest.raises(Unsupported, match="upgrade"):
        sections_of(newer, kind="sample")


@pytest.mark.parametrize(
    "header",
    [
        b"no JSON",
        b"[]",
        b"{}",
        b'{"kind": "sample", "meta": {}, "sections": {"a": 1}}',
        b'{"kind": "sample", "meta": {}, "sections": [{"name": "a", "offset": 0}]}',
        b'{"kind": "sample", "meta": {}, "sections": [{"name": "a", "offset": 0, "dtype": [], "shape": 1}]}',
    ],
)
def test_a_header_that_somebody_else_wrote_is_damaged(header):
    start = struct.pack("<8sII", b"PENSTOCK", FORMAT, len(header))
    data = start + blake2b(start + header, digest_size=16).digest() + header
    with pytest.raises(Damaged, match="a header that its format does not have"):
        sections_of(data + bytes(-len(data) % 64), kind="sample")


def test_every_truncation_is_damaged():
    data = container()

    for size in range(len(data)):
        with pytest.raises(Damaged):
            sections_of(data[:size], kind="sample")
    with pytest.raises(Damaged):
        sections_of(data + b"\0", kind="sample")


def test_every_flipped_bit_is_damaged_or_in_a_padding():
    data = container()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    harmless = 0
    for bit in random.Random(seed).sample(range(8 * len(data)), 2_000):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            sections = sections_of(bytes(flipped), kind="sample")
            sections.verify()
        except Damaged:
            continue
        harmless += 1
        assert all(np.array_equal(sections.arrays[name], array) for name, array in ARRAYS.items())
    padding = sum(-array.nbytes % ALIGNMENT for array in ARRAYS.values()) + ALIGNMENT
    assert harmless <= 2_000 * padding / len(data) * 1.5 + 10


def test_a_sample_notices_damage_that_spreads_and_costs_a_few_blocks_only(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    arrays = {"one": np.arange(1_000, dtype="<u4"), "two": np.arange(7, dtype="<u1"), "none": np.zeros(0, "<f4")}
    data = b"".join(write_sections("sample", meta={}, arrays=arrays))
    path = tmp_path / "sample"
    path.write_bytes(data)
    sections = open_sections(path, kind="sample")
    sections.verify()
    for _ in range(20):
        sections.verify_sample(1)

    at = data.index(arrays["one"].tobytes())
    path.write_bytes(data[:at] + bytes(4_000) + data[at + 4_000 :])
    with pytest.raises(Damaged, match="'one' does not match its checksum"):
        open_sections(path, kind="sample").verify_sample(2)

    hashed: list[int] = []
    monkeypatch.setattr(blocks, "_digest", lambda block: hashed.append(block.nbytes) or b"")
    with pytest.raises(Damaged):
        sections.verify_sample(1)
    assert sum(hashed) <= 64


def test_every_block_has_a_checksum_of_its_own(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100)
    data = memoryview(bytes(range(250)))
    digests = blocks.block_digests(data)
    assert digests.shape == (3, 16)
    assert blocks.blocks_match(data, digests)
    for at in (0, 99, 100, 249):
        altered = bytearray(data)
        altered[at] ^= 1
        assert not blocks.blocks_match(memoryview(altered), digests)
    assert not blocks.blocks_match(data[:200], digests)
    assert not blocks.blocks_match(data, digests[:2])
    assert blocks.blocks_match(data[:0], digests[:0])


def test_of_spans_only_their_own_blocks_are_compared(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100)
    data = bytes(range(250)) * 4
    digests = blocks.block_digests(memoryview(data))
    altered = memoryview(data[:350] + b"?" + data[351:])

    def match(*spans: tuple[int, int], digests: np.ndarray = digests) -> bool:
        starts, ends = (np.array([span[side] for span in spans], np.int64) for side in (0, 1))
        return blocks.spans_match(altered, digests, starts=starts, ends=ends)

    assert match((0, 300), (400, 1_000))
    assert match((350, 350))  # nothing lies there
    assert match()
    for span in ((350, 351), (0, 301), (399, 400), (200, 500)):
        assert not match((0, 10), span)
    assert not match((0, 10), digests=digests[:-1])
    assert not match((990, 1_001))


def test_opening_reads_as_little_of_a_large_file_as_of_a_small_one(monkeypatch):
    """A publish opens every segment of its generation."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    few, many = (write_sections("sample", meta={}, arrays={"x": np.zeros(n, "<u8")})[0] for n in (1_000, 100_000))
    assert len(many) <= len(few) + 64


def test_a_checksum_that_rotted_is_damage(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    head, checksums, *_ = parts = write_sections("sample", meta={}, arrays={"x": np.arange(100, dtype="<u4")})
    data = bytearray(b"".join(parts))
    assert len(checksums) == 7 * 16 + 16
    for number in range(7):
        data[len(head) + 16 * number] ^= 1
        sections = sections_of(bytes(data), kind="sample")
        assert sections.intact_blocks("x").tolist() == [one != number for one in range(7)]
        with pytest.raises(Damaged, match="'x' does not match its checksum"):
            sections.verify()
        data[len(head) + 16 * number] ^= 1
