"""The versions of generations as the object store alone tells them: which manifests there are, and which follow which.

A manifest that a writer stored and never published looks like one that was published. Of two for one version the one of
the later writer counts; the others are nobody's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .. import paths
from ..errors import Damaged
from ..ids import GenerationId, TenantId
from ..objects.store import ObjectStore
from ..segments.files import SEGMENT_KIND, check_is_of, local_file
from ..segments.lookups import TELLING
from ..segments.manifests import Manifest, read_manifest
from ..segments.sections import open_sections
from ..segments.tombstones import read_deletes


@dataclass(frozen=True)
class Lineage:
    """The newest version whose files are all there, and those before it as far as they are, each with its name.

    ``unreadable``: manifests that are damaged, and newer versions that lack files or do not tell their documents.
    ``last_epoch``: of any writer here.
    """

    generation_id: GenerationId
    versions: Sequence[tuple[str, Manifest]]
    unreadable: Sequence[str]
    first_at: float
    last_epoch: int

    @property
    def newest(self) -> Manifest:
        return self.versions[0][1]

    @property
    def is_untouched_fork(self) -> bool:
        """Whether it is the first version of a fork, and no writer was ever here.

        So does one look whose process died between storing its manifest and inserting its rows: nobody ever saw it.
        """
        followed = any((paths.manifest_version(name) or 0) > 1 for name in self.unreadable)
        return self.newest.version == 1 and self.last_epoch == 0 and not followed


def find_tenants(objects: ObjectStore) -> list[TenantId]:
    """Return the tenants that have objects, by name."""
    return sorted({TenantId(info.name.split("/")[1]) for info in objects.list("tenants/")})


def find_lineages(objects: ObjectStore, tenant: TenantId) -> Iterator[Lineage | Sequence[str]]:
    """Yield the lineage of each generation of the tenant; where none can be served, the names of its manifests.

    Raises:
        Unsupported: a manifest was written by a newer program.
    """
    sizes = {info.name: info.size_bytes for info in objects.list(paths.generations_prefix(tenant))}
    names: dict[GenerationId, list[str]] = {}
    for name in sizes:
        if paths.manifest_version(name) is not None:
            names.setdefault(paths.generation_of(name), []).append(name)
    for generation_id in sorted(names):
        yield _lineage(objects, generation_id, sorted(names[generation_id]), sizes=sizes) or names[generation_id]


def _lineage(
    objects: ObjectStore, generation_id: GenerationId, names: Sequence[str], *, sizes: dict[str, int]
) -> Lineage | None:
    found: dict[str, Manifest] = {}
    unreadable: list[str] = []
    for name in names:
        try:
            found[name] = read_manifest(objects, name)
        except Damaged:
            unreadable.append(name)
    ranked = sorted(found, key=lambda name: (found[name].version, found[name].writer_epoch, found[name].created_at))
    while ranked and not (_is_whole(found[ranked[-1]], sizes) and _tells_its_documents(objects, found[ranked[-1]])):
        unreadable.append(ranked.pop())
    if not ranked:
        return None
    return Lineage(
        generation_id,
        versions=list(_chain(found, ranked[-1], sizes)),
        unreadable=sorted(unreadable),
        first_at=min(manifest.created_at for manifest in found.values()),
        last_epoch=max(manifest.writer_epoch for manifest in found.values()),
    )


def _chain(found: dict[str, Manifest], newest: str, sizes: dict[str, int]) -> Iterator[tuple[str, Manifest]]:
    name = newest
    # Before it began to serve it was not what its collection held.
    since = found[newest].active_since
    while name in found and found[name].active_since == since and _is_whole(found[name], sizes):
        yield name, found[name]
        name = found[name].parent or ""


def _tells_its_documents(objects: ObjectStore, manifest: Manifest) -> bool:
    """Say whether all that the catalog's rows are made of is what was written. Other damage is for a repair."""
    try:
        for entry in manifest.segments:
            objects.drop_damaged_copy(entry.files[0].name, blake2b=entry.files[0].blake2b)  # it says nothing
            sections = open_sections(local_file(objects, entry.files[0]), kind=SEGMENT_KIND)
            check_is_of(sections, entry)
            sections.verify(*TELLING)
            read_deletes(objects, entry)
    except Damaged:
        return False
    return True


def _is_whole(manifest: Manifest, sizes: dict[str, int]) -> bool:
    """Say whether all files are there with their sizes; their bytes are for an examination."""
    return all(sizes.get(file.name) == file.size_bytes for entry in manifest.segments for file in entry.all_files)
