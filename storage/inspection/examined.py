"""What is known of one generation while it is looked at, and what its kept versions are made of. It reads nothing."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..ids import SegmentId
from ..segments.manifests import FileEntry, Manifest, SegmentEntry
from .contents import Difference
from .findings import Check, Finding, Severity
from .reachability import Reached
from .statements import StatedGeneration

REACHED_MISSED_MAX = 0.005  # share of the rows of a graph that may be missed, as when it was built
SegmentKey = tuple[SegmentId, str]  # a segment, and the file of its tombstones or ""


@dataclass
class ExaminedGeneration:
    """What is known of a generation. ``manifests`` holds the kept versions that can be read, by object name."""

    stated: StatedGeneration
    manifests: dict[str, Manifest] = field(default_factory=dict)
    broken: set[SegmentKey] = field(default_factory=set)  # what cannot be trusted
    lost_rows: dict[SegmentId, Reached] = field(default_factory=dict)
    difference: Difference = field(default_factory=Difference)
    contradicts: bool = False  # the catalog states other facts than the current manifest: not of one moment
    documents: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def current(self) -> Manifest | None:
        """The current version, where it can be read."""
        return self.manifests.get(self.stated.info.manifest or "")

    def is_broken(self, entry: SegmentEntry) -> bool:
        return key_of(entry) in self.broken

    @property
    def lost_graphs(self) -> list[SegmentEntry]:
        """The graphs of the current version that miss more rows than a graph may."""
        entries = self.current.segments if self.current else []
        return [entry for entry in entries if entry.id in self.lost_rows and is_lossy(self.lost_rows[entry.id])]

    @property
    def is_served(self) -> bool:
        return self.stated.info.state == "active"

    def report(self, severity: Severity, check: Check, name: str, problem: str, advice: str) -> None:
        info = self.stated.info
        self.findings.append(Finding(severity, check, name, problem, advice, info.tenant_id, info.id))


@dataclass(frozen=True)
class NamedFile:
    """A file, a segment that it belongs to, and the kept versions that name it."""

    file: FileEntry
    entry: SegmentEntry
    names: list[str]


def named_files(found: ExaminedGeneration) -> list[NamedFile]:
    """Return every file of the kept versions that can be read, once, with those that name it."""
    files: dict[str, NamedFile] = {}
    for name, manifest in found.manifests.items():
        for entry in manifest.segments:
            for file in entry.all_files:
                files.setdefault(file.name, NamedFile(file, entry, [])).names.append(name)
    return list(files.values())


def segments_of(found: ExaminedGeneration) -> Iterator[tuple[SegmentEntry, str]]:
    """Yield each segment with each of its tombstones, and a version that names it so, the newest first."""
    seen: set[SegmentKey] = set()
    for name, manifest in found.manifests.items():
        for entry in manifest.segments:
            if key_of(entry) not in seen:
                seen.add(key_of(entry))
                yield entry, name


def key_of(entry: SegmentEntry) -> SegmentKey:
    """Return what tells a segment with its tombstones from the same with others."""
    return entry.id, entry.deletes.name if entry.deletes else ""


def counts_of(manifest: Manifest) -> tuple[int, int, int]:
    """Return what the row of a version says of it: segments, live chunks, bytes of all files."""
    size_bytes = sum(file.size_bytes for entry in manifest.segments for file in entry.all_files)
    return len(manifest.segments), manifest.live_chunks, size_bytes


def is_lossy(reached: Reached) -> bool:
    """Say whether a row was missed to which no link leads, or more than a graph may miss."""
    return reached.unlinked > 0 or len(reached.missed) > REACHED_MISSED_MAX * reached.asked
