"""Manifests: the immutable list of segments and tombstones that is version N of a generation.

A manifest names every file with its size and checksum, and says enough about its generation for the catalog's index
rows to be rebuilt from the object store alone. It does not open the files it names.

The object is ``{"blake2b":"<64 hex>","manifest":{…}}`` and a newline; the checksum covers the bytes of the inner
object, which is canonical JSON (sorted keys, no spaces). What a later program adds that this one must not ignore
comes with a word in ``flags``; this program refuses words it does not know before it looks at anything else.
"""

import json
from dataclasses import asdict, dataclass, field
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Literal

from ..errors import Damaged, InvalidName, Missing, NotFound, Unsupported
from ..ids import CollectionId, GenerationId, ManifestVersion, SegmentId, TenantId
from ..objects.store import ObjectStore
from ..paths import checked_object_name, tenant_prefix
from ..paths import manifest as manifest_name

FORMAT = 1
INT8 = "int8"  # graphs are walked by int8 records, and the best compared by their float32 vectors
KNOWN_FLAGS = frozenset({INT8})
METRICS = ("cosine", "dot", "l2")
CHECKSUM_BYTES = 32
_OPENING, _MIDDLE, _CLOSING = b'{"blake2b":"', b'","manifest":', b"}\n"
_BODY_AT = len(_OPENING) + 2 * CHECKSUM_BYTES + len(_MIDDLE)

SegmentKind = Literal["flat", "graph"]


@dataclass(frozen=True)
class FileEntry:
    name: str  # full object name
    size_bytes: int
    blake2b: str  # blake2b-256 of the file, hex


@dataclass(frozen=True)
class SegmentEntry:
    """One segment of a manifest. ``files[0]`` is the ``.segment`` file; of a graph, ``files[1]`` is the ``.hnsw``."""

    id: SegmentId
    kind: SegmentKind
    row_count: int  # tombstones included
    first_chunk_id: int  # of its rows; the ranges of the segments of one manifest ascend and never overlap
    last_chunk_id: int
    files: list[FileEntry]
    deletes: FileEntry | None = None
    deleted_count: int = 0

    @property
    def live_count(self) -> int:
        return self.row_count - self.deleted_count

    @property
    def all_files(self) -> list[FileEntry]:
        return [*self.files, *([self.deletes] if self.deletes else [])]

    def overlaps(self, other: "SegmentEntry") -> bool:
        """Say whether the ranges of chunk ids have one in common, so that no manifest can name both."""
        return self.first_chunk_id <= other.last_chunk_id and other.first_chunk_id <= self.last_chunk_id

    def to_details(self) -> dict[str, Any]:
        """Return JSON values that ``from_details`` reads: in a manifest, and in the ledger's swap batches."""
        return asdict(self)

    @classmethod
    def from_details(cls, details: dict[str, Any]) -> "SegmentEntry":
        """Raises TypeError or KeyError when fields are missing or unknown."""
        files = [FileEntry(**file) for file in details["files"]]
        deletes = FileEntry(**details["deletes"]) if details["deletes"] else None
        return cls(**{**details, "files": files, "deletes": deletes})


@dataclass(frozen=True)
class Swap:
    """What a merge made: ``output`` holds the rows of the segments ``inputs``, which it replaces."""

    inputs: list[SegmentId]
    output: SegmentEntry

    def to_details(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_details(cls, details: dict[str, Any]) -> "Swap":
        return cls(inputs=details["inputs"], output=SegmentEntry.from_details(details["output"]))


@dataclass(frozen=True)
class Manifest:
    generation_id: GenerationId
    tenant_id: TenantId
    collection_id: CollectionId
    collection_name: str
    version: ManifestVersion  # 1 is the first
    parent: str | None  # object name of the manifest before
    writer_epoch: int
    model: str
    dimensions: int
    metric: str
    chunking: dict[str, Any]
    shard: int
    next_chunk_id: int
    created_at: float
    segments: list[SegmentEntry]
    flags: list[str] = field(default_factory=list)
    active_since: float | None = None  # when its generation began to serve; None: it is being built
    format: int = FORMAT

    @property
    def live_chunks(self) -> int:
        return sum(entry.live_count for entry in self.segments)

    @property
    def file_names(self) -> frozenset[str]:
        return frozenset(file.name for entry in self.segments for file in entry.all_files)

    def to_json(self) -> bytes:
        body = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        return _OPENING + _digest(body).encode() + _MIDDLE + body + _CLOSING

    @classmethod
    def from_json(cls, data: bytes, *, source: str = "manifest") -> "Manifest":
        """Read and check a manifest.

        Args:
            source: names the object in errors.

        Raises:
            Damaged: truncated, altered, or it contradicts itself.
            Unsupported: a newer format, or a flag that this program does not know.
        """
        body = data[_BODY_AT : -len(_CLOSING)]
        if data != _OPENING + _digest(body).encode() + _MIDDLE + body + _CLOSING:
            raise Damaged(f"{source} does not match its checksum: truncated or overwritten; restore it")
        try:
            values: dict[str, Any] = json.loads(body)
            _refuse_newer(values["format"], values["flags"], source=source)
            segments = [SegmentEntry.from_details(entry) for entry in values.pop("segments")]
            manifest = cls(segments=segments, **values)
            check_invariants(manifest, source=source)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{source} has fields that its format does not have, or lacks some: {error}") from error
        return manifest


def segments_of(manifest: Manifest | None) -> list[SegmentEntry]:
    """Return the segments of a version; a generation that was never published has none."""
    return manifest.segments if manifest else []


def name_of(manifest: Manifest, data: bytes) -> str:
    """Return the object name of ``manifest``, whose ``to_json`` is ``data``."""
    digest = data[len(_OPENING) : len(_OPENING) + 2 * CHECKSUM_BYTES].decode()
    return manifest_name(manifest.tenant_id, manifest.generation_id, version=manifest.version, digest=digest)


def read_manifest(objects: ObjectStore, name: str) -> Manifest:
    """Read the manifest called ``name``.

    Raises:
        Damaged: it is missing (the catalog or another manifest names it), altered, or stored under another's name.
        Unsupported: written by a newer program.
    """
    try:
        data = objects.get(name)
    except NotFound as error:
        raise Missing(f"manifest {name} is missing from the object store; restore it") from error
    manifest = Manifest.from_json(data, source=name)
    if name_of(manifest, data) != name:
        raise Damaged(f"manifest {name} holds {name_of(manifest, data)}")
    return manifest


def write_manifest(objects: ObjectStore, manifest: Manifest) -> str:
    """Check a manifest, store it, and return its name. Raises Damaged: an invariant does not hold."""
    check_invariants(manifest)
    data = manifest.to_json()
    name = name_of(manifest, data)
    objects.put(name, [data])
    return name


def file_entry(name: str, parts: list[bytes | memoryview]) -> FileEntry:
    """Describe a file of these parts, as ``ObjectStore.put`` will write them."""
    digest = blake2b(digest_size=CHECKSUM_BYTES)
    for part in parts:
        digest.update(part)
    return FileEntry(name=name, size_bytes=sum(memoryview(part).nbytes for part in parts), blake2b=digest.hexdigest())


def describe_file(name: str, path: Path) -> FileEntry:
    """Describe a local file that is, or will be, the object ``name``. Reads all of it."""
    with path.open("rb") as file:
        digest = file_digest(file, lambda: blake2b(digest_size=CHECKSUM_BYTES))
        return FileEntry(name=name, size_bytes=file.tell(), blake2b=digest.hexdigest())


def check_invariants(manifest: Manifest, *, source: str = "manifest") -> None:
    """Check what every reader and writer relies on; called before each publish and after each read.

    Raises:
        Damaged: naming the invariant that does not hold.
    """
    broken = next((claim for claim, holds in _invariants(manifest) if not holds), None)
    if broken is not None:
        raise Damaged(f"{source}: {broken} does not hold; it must not be served")


def _refuse_newer(version: int, flags: list[str], *, source: str) -> None:
    unknown = [f"format {version}"] if version > FORMAT else sorted(set(flags) - KNOWN_FLAGS)
    if unknown:
        raise Unsupported(f"{source} needs {', '.join(unknown)}, which this program does not know: upgrade it")


def _invariants(manifest: Manifest) -> list[tuple[str, bool]]:
    segments = manifest.segments
    ends = [0, *(entry.last_chunk_id for entry in segments)]
    files = [file for entry in segments for file in entry.all_files]
    return [
        ("'the metric is known'", manifest.metric in METRICS),
        ("'dimensions are positive'", manifest.dimensions > 0),
        (
            "'the ranges of chunk ids ascend'",
            all(e.first_chunk_id > end for e, end in zip(segments, ends, strict=False)),
        ),
        ("'every range of chunk ids holds its rows'", all(_range_holds(entry) for entry in segments)),
        ("'chunk ids are below the next one'", ends[-1] < manifest.next_chunk_id),
        ("'every segment has a live row'", all(0 <= entry.deleted_count < entry.row_count for entry in segments)),
        ("'tombstones have a file'", all((e.deletes is not None) == (e.deleted_count > 0) for e in segments)),
        ("'a segment has the files of its kind'", all(_files_fit(entry) for entry in segments)),
        ("'no segment is named twice'", len({entry.id for entry in segments}) == len(segments)),
        ("'files belong to the tenant'", all(_belongs(file, manifest.tenant_id) for file in files)),
    ]


def _range_holds(entry: SegmentEntry) -> bool:
    return 1 <= entry.row_count <= entry.last_chunk_id - entry.first_chunk_id + 1


def _files_fit(entry: SegmentEntry) -> bool:
    suffixes = [file.name.rpartition(".")[2] for file in entry.files]
    return suffixes == {"flat": ["segment"], "graph": ["segment", "hnsw"]}.get(entry.kind)


def _belongs(file: FileEntry, tenant: TenantId) -> bool:
    try:
        return checked_object_name(file.name).startswith(tenant_prefix(tenant)) and file.size_bytes >= 0
    except InvalidName:
        return False


def _digest(body: bytes) -> str:
    return blake2b(body, digest_size=CHECKSUM_BYTES).hexdigest()
