"""Rolling back: a new version of a generation that names the segments of an old one, and documents to match.

No file but the manifest is written, and the work goes with what differs between the two versions, a slice of it at a
time. The writer of the shard does it, like every publish: what was accepted meanwhile is indexed on top. It decides
nothing about batches.
"""

from dataclasses import dataclass, replace

from ..catalog.engine import Catalog
from ..catalog.generations import generation_info
from ..catalog.references import Reference, find_version
from ..errors import Conflict, Damaged, NotKept
from ..ids import GenerationId, ManifestVersion
from ..objects.store import ObjectStore
from ..segments.checks import check_served
from ..segments.differences import Comparison
from ..segments.manifests import Manifest, read_manifest
from ..segments.version_changes import VersionChanges


@dataclass(frozen=True)
class Rollback:
    """Version ``version`` as it was, and how its documents differ from those of the manifest ``current``."""

    version: ManifestVersion
    manifest: Manifest
    current: str
    changes: VersionChanges

    def applied_to(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the segments of the old version. Chunk ids go on from where they are."""
        flags = sorted({*manifest.flags, *self.manifest.flags})
        return replace(manifest, segments=self.manifest.segments, flags=flags)


def plan_rollback(
    catalog: Catalog, objects: ObjectStore, generation_id: GenerationId, *, version: ManifestVersion
) -> Rollback:
    """Read what a rollback to ``version`` changes in the current one.

    Raises:
        NotKept: the version is not there any more. NotFound: nor is the generation.
        Conflict: another version was published meanwhile: look again.
        Damaged: a manifest, a segment or its tombstones are not what was written.
    """
    current = generation_info(catalog, generation_id).manifest
    kept = find_version(catalog, generation_id, Reference(version=version))
    if kept is None or current is None:
        raise NotKept(f"there is no version {version} to roll back to")
    try:
        manifest = read_manifest(objects, kept.name)
        served = read_manifest(objects, current)
        # Those that are served now too: they may have rotted since a reader opened them.
        check_served(objects, manifest.segments, dimensions=manifest.dimensions)
        changes = Comparison(objects, served, manifest).version_changes()  # now, while nobody has to wait for it
        return Rollback(kept.version, manifest, current, changes)
    except Damaged:
        find_version(catalog, generation_id, Reference(version=version))
        if generation_info(catalog, generation_id).manifest != current:
            raise Conflict(f"{generation_id} was published while it was compared: look again") from None
        raise
