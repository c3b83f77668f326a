"""Forks: a new collection that begins with a version of another one of its tenant, without a copy of any file.

The first manifest of the fork names the files of its parent, which the collector keeps as long as some version of the
tenant does, whatever becomes of the parent. Documents keep their ids, because the segments tell them; from the first
moment on the two collections share nothing that either of them could change.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from ..catalog.collections import CollectionInfo, get_collection
from ..catalog.copies import Copy, find_beginning, insert_copy
from ..catalog.engine import Catalog
from ..catalog.generations import generation_info
from ..catalog.manifests import ManifestInfo, is_kept
from ..catalog.references import Reference, find_version
from ..catalog.sweeps import guard_of_tenant
from ..errors import AlreadyExists, Conflict, Damaged, LimitReached, NotFound, NotKept, Unavailable
from ..grace import Lookout
from ..ids import CollectionId, GenerationId, JobId, ManifestVersion, TenantId, checked_name, new_id
from ..limits import MAX_COLLECTIONS_PER_TENANT
from ..objects.store import ObjectStore
from ..segments.checks import check_served
from ..segments.differences import Comparison
from ..segments.manifests import Manifest, read_manifest, write_manifest
from ..segments.version_changes import VersionChanges

_ATTEMPTS = 5  # a version may be published between the comparison and the transaction


@dataclass(frozen=True)
class _Parent:
    """The version to begin with, and how it differs from what the parent's catalog rows describe: version ``seen``."""

    kept: ManifestInfo
    manifest: Manifest
    seen: ManifestVersion
    changes: VersionChanges


def fork_collection(
    catalog: Catalog,
    objects: ObjectStore,
    *,
    parent: CollectionInfo,
    reference: Reference,
    name: str,
    clock: Callable[[], float],
    max_collections: int = MAX_COLLECTIONS_PER_TENANT,
) -> CollectionInfo:
    """Make a collection ``name`` with the documents that a version of ``parent`` serves.

    Rows are copied for each document, and no file is. What is on its way into the parent stays there.

    Raises:
        InvalidName, AlreadyExists, LimitReached: as for any new collection.
        NotKept: the version is not there any more, or nothing was published yet.
        Conflict: the parent is published faster than it can be looked at.
        Damaged: a manifest or a segment is not what was written.
    """
    checked_name("collection", name)
    _refuse_taken(catalog, parent.tenant_id, name)  # here, for a look at two versions may take long
    for _ in range(_ATTEMPTS):
        with suppress(_Moved):
            looked_at = _look(catalog, objects, parent, reference)
            try:
                return _commit(
                    catalog, objects, looked_at, parent=parent, name=name, now=clock(), max_collections=max_collections
                )
            except AlreadyExists:
                _refuse_taken(catalog, parent.tenant_id, name)
                raise
    raise Conflict(f"collection {parent.name!r} is published faster than it can be forked: try again, or fork a tag")


def _refuse_taken(catalog: Catalog, tenant: TenantId, name: str) -> None:
    """Raise AlreadyExists if there is a collection of that name; who asked twice learns that the first time did it."""
    with catalog.read() as connection:
        found = find_beginning(connection, tenant=tenant, name=name)
    if found is None:
        return
    taken = f"collection {name!r} exists already"
    if not found.is_fork:
        raise AlreadyExists(f"{taken}: choose another name, or delete it first")
    parent = "a collection since deleted" if found.parent is None else repr(found.parent)
    of = "" if found.version is None else f" of version {found.version} of {parent}"
    raise AlreadyExists(
        f"{taken}, a fork{of}: if you asked for just that and got no answer, go on with it; else choose another name"
    )


class _Moved(Exception):
    """The parent was published meanwhile: look again."""


def _look(catalog: Catalog, objects: ObjectStore, parent: CollectionInfo, reference: Reference) -> _Parent:
    kept = find_version(catalog, parent.generation.id, reference)
    if kept is None:
        told = "had no version then"
        if reference.version == 0:
            told = "has no version 0, which stands for the time before its first"
        raise NotKept(f"collection {parent.name!r} {told}: {_advice(parent)}")
    generation = generation_info(catalog, parent.generation.id)
    assert generation.manifest is not None
    try:
        manifest = read_manifest(objects, kept.name)
        check_served(objects, manifest.segments, dimensions=manifest.dimensions)
        # Now, while nobody has to wait for it.
        changes = Comparison(objects, read_manifest(objects, generation.manifest), manifest).version_changes()
    except Damaged:
        if not is_kept(catalog, kept.generation_id, kept.version):
            raise NotKept(f"version {kept.version} is not kept any more: choose another") from None
        if generation_info(catalog, generation.id).manifest != generation.manifest:
            raise _Moved from None
        raise
    return _Parent(kept, manifest, generation.version, changes)


def _advice(parent: CollectionInfo) -> str:
    return "list the versions" if parent.generation.version else "submit documents to publish the first"


def _commit(
    catalog: Catalog,
    objects: ObjectStore,
    looked_at: _Parent,
    *,
    parent: CollectionInfo,
    name: str,
    now: float,
    max_collections: int,
) -> CollectionInfo:
    first = replace(
        looked_at.manifest,
        generation_id=GenerationId(new_id("gen")),
        collection_id=CollectionId(new_id("col")),
        collection_name=name,
        version=ManifestVersion(1),
        parent=None,
        writer_epoch=0,  # no writer made it
        active_since=now,
        created_at=now,
    )
    since = Lookout.begin(catalog, guard_of_tenant(parent.tenant_id))
    manifest_name = write_manifest(objects, first)
    copy = Copy(
        kept=looked_at.kept,
        seen=looked_at.seen,
        changes=looked_at.changes,
        first=first,
        name=manifest_name,
        job_id=JobId(new_id("job")),
        max_collections=max_collections,
    )
    try:
        _insert(catalog, objects, copy, since=since)
    except (_Moved, AlreadyExists, Damaged, LimitReached, NotFound, NotKept):
        # Nothing names it, and nothing will. Left to the collector, it would be a later collection of that name to
        # whoever makes a lost catalog again from the objects.
        with suppress(Unavailable):
            objects.delete(manifest_name)
        raise
    return get_collection(catalog, tenant=parent.tenant_id, name=name)


def _insert(catalog: Catalog, objects: ObjectStore, copy: Copy, *, since: Lookout) -> None:
    with catalog.write("fork") as connection:
        if not insert_copy(connection, copy):
            raise _Moved
        if not since.nothing_left(connection) and not objects.exists(copy.name):
            raise _Moved  # writing took so long that it was collected
