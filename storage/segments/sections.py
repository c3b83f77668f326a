"""The container file of staging objects, segments and tombstones: a small JSON header, then named arrays.

It knows nothing of what the arrays mean. Layout, little-endian:

    0    8 bytes  b"PENSTOCK"
    8    u32      format
    12   u32      header bytes
    16   16 bytes blake2b-128 of bytes 0..16 and of the header
    32   header   JSON {kind, meta, sections: [{name, dtype, shape, offset, size_bytes, blocks}]}
    checksums     at the next multiple of 64: blake2b-128 of each block of each section, in their order
    data          at the next multiple of 64; ``offset`` counts from here, each section starts at a multiple of 64

The first 32 bytes keep their meaning in every later format, so that a damaged file is told from a newer one.
Opening reads the header only, which is as short for a large file as for a small one; the checksums of the sections are
compared by ``Sections.verify``. They need none of their own: one that rotted differs from what its block has.
"""

import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged, NotFound, Unsupported
from ..objects.mapped_files import open_to_map
from .blocks import DIGEST_BYTES, block_digests, blocks_match, intact_blocks, spans_match

MAGIC = b"PENSTOCK"
FORMAT = 1
ALIGNMENT = 64
PREFIX = struct.Struct("<8sII16s")
_DTYPES = frozenset({"|u1", "<u2", "<u4", "<u8", "<i4", "<i8", "<f4", "<f8"})

Array = NDArray[Any]


@dataclass(frozen=True)
class Sections:
    """An opened container: ``arrays`` are read-only views of the file, valid for as long as any of them is held."""

    kind: str
    meta: dict[str, Any]
    arrays: dict[str, Array]
    size_bytes: int
    source: str
    checksums: dict[str, NDArray[np.uint8]] = field(repr=False)  # of the blocks of each section
    places: dict[str, int] = field(repr=False)  # of each section: bytes from the start of the file

    def verify(self, *names: str) -> None:
        """Compare these sections with their checksums, without names all of them; reads all of each.

        Raises:
            Damaged: a section is missing or not what was written.
        """
        for name in names or self.arrays:
            if not self.is_intact(name):
                raise self._damaged(name)

    def is_intact(self, name: str) -> bool:
        """Say whether a section is there and is what was written; reads all of it."""
        return name in self.arrays and blocks_match(_bytes_of(self.arrays[name]), self.checksums[name])

    def intact_blocks(self, name: str) -> NDArray[np.bool_]:
        """Say of each block of a section that is there whether it is what was written; reads all of it."""
        return intact_blocks(_bytes_of(self.arrays[name]), self.checksums[name])

    def verify_sample(self, blocks: int) -> None:
        """Compare up to ``blocks`` blocks of each section, drawn at random.

        Raises:
            Damaged: a section is not what was written.
        """
        for name, array in self.arrays.items():
            if not blocks_match(_bytes_of(array), self.checksums[name], sample=blocks):
                raise self._damaged(name)

    def verify_items(self, name: str, items: NDArray[Any]) -> None:
        """Compare the blocks that hold these items, along the first axis, and no others.

        Raises:
            Damaged: one of them is not what was written.
        """
        width = self.arrays[name].strides[0]
        positions = items.astype(np.int64)
        self.verify_spans(name, positions * width, (positions + 1) * width)

    def verify_spans(self, name: str, starts: NDArray[Any], ends: NDArray[Any]) -> None:
        """Compare the blocks that hold these bytes of the section. Raises as ``verify_items``."""
        if not spans_match(_bytes_of(self.arrays[name]), self.checksums[name], starts=starts, ends=ends):
            raise self._damaged(name)

    def _damaged(self, name: str) -> Damaged:
        return Damaged(f"{self.source}: section {name!r} does not match its checksum; restore or rebuild the file")


def write_sections(kind: str, *, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> list[bytes | memoryview]:
    """Return the parts of a container file for ``ObjectStore.put``. The arrays are not copied when C-contiguous.

    Args:
        kind: what the file is; ``open_sections`` insists on it.
        meta: JSON values.
        arrays: little-endian arrays of u1, u2, u4, u8, i4, i8, f4 or f8, of any shape.
    """
    entries: list[dict[str, Any]] = []
    digests, data = list[NDArray[np.uint8]](), list[bytes | memoryview]()
    offset = 0
    for name, given in arrays.items():
        array = np.ascontiguousarray(given)
        if array.dtype.str not in _DTYPES:
            raise TypeError(f"section {name!r} has dtype {array.dtype}, which a container cannot hold")
        digests.append(block_digests(_bytes_of(array)))
        entries.append(
            {
                "name": name,
                "dtype": array.dtype.str,
                "shape": list(given.shape),
                "offset": offset,
                "size_bytes": array.nbytes,
                "blocks": len(digests[-1]),
            }
        )
        data += [_bytes_of(array), bytes(_aligned(array.nbytes) - array.nbytes)]
        offset += _aligned(array.nbytes)
    checksums = b"".join(each.tobytes() for each in digests)
    return [_head(kind, meta=meta, entries=entries), checksums.ljust(_aligned(len(checksums)), b"\0"), *data]


def open_sections(path: Path, *, kind: str) -> Sections:
    """Map a container file read-only.

    Raises:
        NotFound: there is no such file.
        Damaged: truncated, of another kind, or its header is not what was written.
        Unsupported: written in a newer format.
    """
    try:
        with open_to_map(path) as file:
            if file.seek(0, 2) < PREFIX.size:
                raise Damaged(f"{path.name} is truncated: it is shorter than a container's first {PREFIX.size} bytes")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise NotFound(f"{path.name} does not exist") from error
    return _parse(mapped, kind=kind, source=path.name)


def _head(kind: str, *, meta: Mapping[str, Any], entries: list[dict[str, Any]]) -> bytes:
    document = {"kind": kind, "meta": meta, "sections": entries}
    header = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    start = struct.pack("<8sII", MAGIC, FORMAT, len(header))
    head = start + _digest(start, header) + header
    return head.ljust(_aligned(len(head)), b"\0")


def _parse(buffer: mmap.mmap, *, kind: str, source: str) -> Sections:
    header, checksums_at = _header(buffer, source=source)
    if header["kind"] != kind:
        raise Damaged(f"{source} is a {header['kind']!r} file where a {kind!r} file is needed")
    try:
        return _opened(buffer, header, checksums_at=checksums_at, source=source)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _malformed(source) from error


def _opened(buffer: mmap.mmap, header: dict[str, Any], *, checksums_at: int, source: str) -> Sections:
    arrays: dict[str, Array] = {}
    checksums = _checksums(buffer, header["sections"], at=checksums_at, source=source)
    expected = data_at = checksums_at + _aligned(DIGEST_BYTES * sum(map(len, checksums.values())))
    for entry in header["sections"]:
        if data_at + entry["offset"] != expected:
            raise Damaged(f"{source}: section {entry['name']!r} does not start where the one before it ends")
        arrays[entry["name"]] = _view(buffer, entry, at=expected, source=source)
        expected += _aligned(entry["size_bytes"])
    if len(buffer) != expected:
        raise Damaged(f"{source} has {len(buffer)} bytes where its header says {expected}: truncated or overwritten")
    return Sections(
        kind=header["kind"],
        meta=header["meta"],
        arrays=arrays,
        size_bytes=expected,
        source=source,
        checksums=checksums,
        places={entry["name"]: data_at + entry["offset"] for entry in header["sections"]},
    )


def _header(buffer: mmap.mmap, *, source: str) -> tuple[dict[str, Any], int]:
    """Return the checked header and where it ends."""
    magic, version, header_bytes, checksum = PREFIX.unpack(buffer[: PREFIX.size])
    if magic != MAGIC:
        raise Damaged(f"{source} does not begin with {MAGIC.decode()}: it is no container file")
    end = PREFIX.size + header_bytes
    header = buffer[PREFIX.size : end]
    if _digest(buffer[:16], header) != checksum:
        raise Damaged(f"{source}: the header does not match its checksum; restore or rebuild the file")
    if version > FORMAT:
        raise Unsupported(f"{source} has container format {version}, this program reads up to {FORMAT}: upgrade it")
    try:
        document: dict[str, Any] = json.loads(header)
        return {name: document[name] for name in ("kind", "meta", "sections")}, _aligned(end)
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed(source) from error


def _malformed(source: str) -> Damaged:
    """Not from rot, which the checksum of the header tells: somebody else wrote the file."""
    return Damaged(f"{source} has a header that its format does not have: it is no file of this program; restore it")


def _checksums(
    buffer: mmap.mmap, entries: list[dict[str, Any]], *, at: int, source: str
) -> dict[str, NDArray[np.uint8]]:
    ends = np.cumsum([0, *(entry["blocks"] for entry in entries)]).tolist()
    if at + DIGEST_BYTES * ends[-1] > len(buffer):
        raise Damaged(f"{source} is truncated inside its checksums")
    table = np.frombuffer(buffer, "|u1", count=DIGEST_BYTES * ends[-1], offset=at).reshape(-1, DIGEST_BYTES)
    return {entry["name"]: table[ends[i] : ends[i + 1]] for i, entry in enumerate(entries)}


def _view(buffer: mmap.mmap, entry: dict[str, Any], *, at: int, source: str) -> Array:
    name, shape, size_bytes = entry["name"], tuple(entry["shape"]), entry["size_bytes"]
    if entry["dtype"] not in _DTYPES:
        raise Unsupported(f"{source}: section {name!r} has dtype {entry['dtype']}, unknown to this program: upgrade it")
    dtype = np.dtype(entry["dtype"])
    if size_bytes != prod(shape) * dtype.itemsize:
        raise Damaged(f"{source}: section {name!r} has {size_bytes} bytes, which is not what its shape {shape} needs")
    if at + size_bytes > len(buffer):
        raise Damaged(f"{source} is truncated inside section {name!r}")
    if not size_bytes:
        return np.empty(shape, dtype)
    view = np.frombuffer(buffer, dtype, count=prod(shape), offset=at).reshape(shape)
    view.flags.writeable = False
    return view


def _aligned(size_bytes: int) -> int:
    return size_bytes + -size_bytes % ALIGNMENT


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")


def _digest(start: bytes, header: bytes) -> bytes:
    return blake2b(start + header, digest_size=DIGEST_BYTES).digest()
