"""What a rebuilt catalog lacks, and what to do about it. In words only, but for the packs, which are counted."""

from collections.abc import Iterator, Sequence

from .. import paths
from ..ids import TenantId
from ..objects.store import ObjectStore
from .findings import Finding
from .lineages import Lineage
from .wording import counted


def unused_packs(objects: ObjectStore, used: set[str], *, tenant: TenantId) -> Iterator[Finding]:
    unused = [info for info in objects.list(paths.packs_prefix(tenant)) if info.name not in used]
    if unused:
        yield Finding(
            severity="warning",
            check="packs",
            object=min(unused, key=lambda info: -info.modified_at).name,
            problem=f"documents that the index does not hold lie in {counted(len(unused), 'pack')} of "
            f"{sum(info.size_bytes for info in unused):,} bytes, of which this is the newest: replaced, deleted or "
            "failed ones, and those that were accepted and not indexed yet, whose sources and metadata only the lost "
            "catalog knew",
            advice="submit the latest documents again. The maintenance role deletes such packs: copy them away before "
            "it is started if their producers cannot",
            tenant=tenant,
        )


def unreadable(name: str, *, tenant: TenantId) -> Finding:
    return Finding(
        severity="warning",
        check="manifests",
        object=name,
        problem=f"version {paths.manifest_version(name)} is damaged, lacks files or does not tell its documents: "
        "it was left out",
        advice="restore its files from a backup and rebuild again, if it is newer than what is served now",
        tenant=tenant,
        generation=paths.generation_of(name),
    )


def unserved(names: Sequence[str], *, tenant: TenantId) -> Finding:
    return Finding(
        severity="error",
        check="manifests",
        object=max(names),
        problem="no version of this generation is whole: nothing of it came back",
        advice="restore its files from a backup and rebuild again, or submit its documents again",
        tenant=tenant,
        generation=paths.generation_of(names[0]),
    )


def superseded(lineage: Lineage, *, tenant: TenantId) -> Finding:
    problem = (
        f"another collection {lineage.newest.collection_name!r} was published later: this one was deleted before, or "
        "the other was, and only the later came back"
    )
    return _left(lineage, problem, advice="nothing, if it was deleted; its files are garbage now", tenant=tenant)


def not_serving(lineage: Lineage, *, tenant: TenantId) -> Finding:
    newest = lineage.newest
    problem = (
        f"collection {newest.collection_name!r} had another generation, of model {newest.model}, beside "
        "the one that serves: it was being built, or served before, and did not come back"
    )
    advice = "nothing, or embed the collection again with that model; its files are garbage now"
    return _left(lineage, problem, advice=advice, tenant=tenant)


def untouched_fork(lineage: Lineage, *, tenant: TenantId) -> Finding:
    problem = (
        f"another collection {lineage.newest.collection_name!r} came back: this one is a fork into which "
        "nothing was published, perhaps one that was never finished"
    )
    advice = "nothing, if nobody used it; else fork it again, under another name"
    return _left(lineage, problem, advice=advice, tenant=tenant)


def _left(lineage: Lineage, problem: str, *, advice: str, tenant: TenantId) -> Finding:
    """Return what is told of a generation that is whole and did not come back."""
    return Finding(
        severity="warning",
        check="manifests",
        object=lineage.versions[0][0],
        problem=problem,
        advice=advice,
        tenant=tenant,
        generation=lineage.generation_id,
    )
