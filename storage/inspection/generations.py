"""One generation looked at: its kept versions and every file they name, its graphs, and what it holds.

It changes nothing, and remembers what a repair has to know.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from ..catalog.engine import Catalog
from ..errors import Damaged, Missing
from ..ids import DocumentId
from ..objects.store import ObjectStore
from ..paths import manifest_version
from ..search.reader_leases import LAPSED_S, LET_GO_S
from ..search.searchable import SearchableSegment
from ..segments.graph_files import check_links
from ..segments.manifests import Manifest, SegmentEntry, read_manifest
from ..segments.segment import open_segment
from ..segments.tombstones import read_deletes
from .checksums import CheckedFiles
from .contents import Contents, Indexed, read_indexed
from .examined import ExaminedGeneration, NamedFile, counts_of, is_lossy, key_of, named_files, segments_of
from .reachability import look_for_rows
from .statements import StatedGeneration, StatedVersion, read_stated_generation
from .wording import counted, numbered

_LOOKS = 5
REPAIR = "`penstock doctor --repair` mends it"
FACTS = ("tenant_id", "collection_id", "model", "dimensions", "metric", "shard")


class GenerationExaminer:
    """Looks at generations, each file once however many versions name it."""

    def __init__(
        self,
        catalog: Catalog,
        objects: ObjectStore,
        checked: CheckedFiles,
        *,
        rows_per_graph: int | None,
        on_rows: Callable[[int], None],
    ) -> None:
        self._catalog = catalog
        self._objects = objects
        self.checked = checked
        self._rows_per_graph = rows_per_graph
        self._on_rows = on_rows

    def read(self, stated: StatedGeneration) -> ExaminedGeneration:
        """Read the manifests and compare them with the catalog: what must come before anything else."""
        found = ExaminedGeneration(stated)
        for name in stated.names:
            try:
                found.manifests[name] = read_manifest(self._objects, name)
            except Damaged as error:
                self._report_manifest(found, name, str(error))
        _check_statements(found)
        return found

    def examine(self, found: ExaminedGeneration, *, graphs: bool = True) -> None:
        """Check every file, the structure of every segment, the graphs and the contents of the current version."""
        for named in named_files(found):
            if problem := self.checked.problem_of(named.file):
                _report_file(found, named, problem)
        for entry, name in segments_of(found):
            self._check_structure(found, entry, name)
        current = found.current
        if current is not None:
            for entry in current.segments:
                if graphs and entry.kind == "graph" and not found.is_broken(entry):
                    with suppress(Missing):  # it was there a moment ago: it was replaced and collected
                        self._check_graph(found, entry, manifest=current)
            if found.is_served:  # any other one holds what it was copied up to: that is for its copying to know
                self._check_contents(found)

    def _report_manifest(self, found: ExaminedGeneration, name: str, problem: str) -> None:
        what = f"version {manifest_version(name)} of collection {found.stated.collection!r}"
        if name == found.stated.info.manifest and found.is_served:
            found.report("error", "manifests", name, f"{problem}: this is the current {what}", _mend())
        else:
            versions = [version for version in found.stated.versions if version.name == name]
            found.report("warning", "manifests", name, f"{problem}: {what} cannot be opened", _let_go(*versions))

    def _check_structure(self, found: ExaminedGeneration, entry: SegmentEntry, name: str) -> None:
        """Check what checksums cannot tell: that files fit together, and links lead somewhere."""
        if not all(self.checked.is_intact(file) for file in entry.all_files):
            found.broken.add(key_of(entry))
            return
        try:
            segment = open_segment(self._objects, entry, dimensions=found.manifests[name].dimensions)
            SearchableSegment(segment)  # checks the structure of the field index
            read_deletes(self._objects, entry)
            if segment.graph is not None:
                check_links(segment.graph, source=entry.files[1].name)
        except Damaged as error:
            found.broken.add(key_of(entry))
            _report_file(found, NamedFile(entry.files[0], entry, [name]), str(error))

    def _check_graph(self, found: ExaminedGeneration, entry: SegmentEntry, *, manifest: Manifest) -> None:
        live = np.setdiff1d(np.arange(entry.row_count), read_deletes(self._objects, entry), assume_unique=True)
        segment = open_segment(self._objects, entry, dimensions=manifest.dimensions)
        most = self._rows_per_graph if segment.is_walked else 0  # then links alone must lead to the rows
        reached = look_for_rows(segment, live=live, most=most, l2=manifest.metric == "l2", on_rows=self._on_rows)
        found.lost_rows[entry.id] = reached
        missed = len(reached.missed)
        if not missed:
            return
        few = not is_lossy(reached)
        told = f"searches for {counted(reached.asked, 'row')} by their own vectors miss {missed:,}"
        if reached.unlinked:
            told = f"no link leads to {reached.unlinked:,} of {counted(len(live), 'live row')}, which no search finds"
        if few:
            told += ": as few as that are within what a graph may miss"
        found.report(
            "note" if few else "error",
            "reachability",
            entry.files[1].name,
            told,
            "nothing" if few else f"the graph must be built anew: {REPAIR}",
        )

    def _check_contents(self, found: ExaminedGeneration) -> None:
        """Compare the current version with the ledger of the same moment; publishes may come all the time."""
        for _ in range(_LOOKS):
            with self._catalog.read() as connection:
                pointer = read_stated_generation(connection, found.stated.info.id).info.manifest
                indexed = read_indexed(connection, found.stated.info.collection_id)
            try:
                self._compare_contents(found, str(pointer), indexed)
            except Damaged as error:
                with self._catalog.read() as connection:
                    if read_stated_generation(connection, found.stated.info.id).info.manifest != pointer:
                        continue  # it was replaced and collected while it was read
                found.report("error", "contents", str(pointer), str(error), _mend())
            return

    def _compare_contents(self, found: ExaminedGeneration, pointer: str, indexed: Indexed) -> None:
        current = found.manifests.get(pointer) or read_manifest(self._objects, pointer)
        held, broken = Contents(), False
        for entry in current.segments:
            if found.is_broken(entry):
                broken = True
            else:
                held.add(self._objects, entry)
        found.documents = len(indexed)
        found.difference = held.difference(indexed)
        name, collection = found.stated.info.id, found.stated.collection
        if lost := found.difference.lost:
            why = "in the damaged files above" if broken else "though no file is damaged"
            told = (
                f"the ledger indexes {counted(len(lost), 'document')} of collection {collection!r} of which the index "
            )
            told += f"has not all chunks, {why}: {_shown([indexed[document].source for document in lost])}"
            found.report("error", "contents", name, told, f"what is lost must be indexed again from packs: {REPAIR}")
        if stray := found.difference.stray:
            told = f"{counted(found.difference.stray_chunks, 'live chunk')} of {counted(len(stray), 'document')} in "
            told += (
                f"collection {collection!r} must not be found: the ledger indexes no version with them: {_shown(stray)}"
            )
            found.report("error", "contents", name, told, f"they must be taken out: {REPAIR}")


def _check_statements(found: ExaminedGeneration) -> None:
    """Compare what the manifests state with what the catalog does."""
    stated = found.stated
    info, name = stated.info, stated.info.manifest
    if name is not None and stated.current is None:
        told = (
            f"collection {stated.collection!r} points to a version that has no row, so that a collector may delete it"
        )
        found.report("error", "manifests", name, told, REPAIR)
        return
    current = found.current
    if current is not None:
        wrong = [fact for fact in FACTS if getattr(current, fact) != getattr(info, fact)]
        wrong += ["version"] * (current.version != info.version)
        wrong += ["next_chunk_id"] * (current.next_chunk_id != stated.next_chunk_id)
        found.contradicts = bool(wrong)
        if wrong:
            told = (
                f"it differs from the catalog in {', '.join(wrong)}: they are not of one moment, nothing is published"
            )
            found.report("error", "manifests", str(name), told, "restore catalog and objects from one backup")
        if current.live_chunks != info.live_chunks:
            told = f"it has {counted(current.live_chunks, 'live chunk')} where the catalog counts {info.live_chunks:,}"
            found.report("warning", "manifests", str(name), told, REPAIR)
    for version in stated.versions:
        manifest = found.manifests.get(version.name)
        if manifest is not None and counts_of(manifest) != version.counts:
            told = f"version {version.version} has other numbers of segments, chunks or bytes than its row says"
            found.report("warning", "manifests", version.name, told, REPAIR)


def _report_file(found: ExaminedGeneration, named: NamedFile, problem: str) -> None:
    entry, collection = named.entry, found.stated.collection
    of = f"{entry.kind} segment {entry.id} with {counted(entry.live_count, 'live chunk')}"
    if found.stated.info.manifest in named.names and found.is_served:
        told = f"{problem}: {of} of the current version of collection {collection!r} cannot be trusted"
        found.report("error", "files", named.file.name, told, _mend())
        return
    versions = [version for version in found.stated.versions if version.name in named.names]
    those = numbered(version.version for version in versions)
    told = f"{problem}: {of} is damaged, and {those} of collection {collection!r} cannot be opened"
    found.report("warning", "files", named.file.name, told, _let_go(*versions))


def _mend() -> str:
    return f"restore the file from a backup, or {REPAIR}"


def _let_go(*versions: StatedVersion) -> str:
    tagged = [version for version in versions if version.tags]
    if tagged:
        tags = [repr(tag) for version in tagged for tag in version.tags]
        named = f"the tag {tags[0]}, which keeps" if len(tags) == 1 else f"the tags {_shown(tags)}, which keep"
        return f"restore the file from a backup, or remove {named} {numbered(one.version for one in tagged)}"
    if leased := [version for version in versions if version.leased]:
        return (
            f"nothing, if nobody needs it: a live reader keeps {numbered(one.version for one in leased)} until "
            f"{LET_GO_S / 60:g} minutes after the last search (one that died, for {LAPSED_S / 60:g} minutes): "
            "`penstock doctor --repair` lets go then"
        )
    those = "these versions: they go" if len(versions) > 1 else "this version: it goes"
    return f"nothing, if nobody needs {those} in time, or at once with `penstock doctor --repair`"


def _shown(words: Sequence[str | DocumentId]) -> str:
    return ", ".join(words[:3]) + (f" and {len(words) - 3:,} more" if len(words) > 3 else "")
