"""Objects that nobody names, and what dead processes left in the scratch directory. They are told, never deleted.

A collector deletes them in time. What is young may be on its way to being named, and is not looked at.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass

from .. import paths
from ..catalog.engine import Catalog
from ..collecting import known_batches, used_packs, waiting_outputs
from ..grace import MIN_AGE_S
from ..ids import TenantId
from ..objects.store import ObjectInfo, ObjectStore
from ..segments.manifests import Manifest
from .findings import Check, Finding
from .statements import kept_names
from .wording import counted

LEFT_ALONE_S = 2 * MIN_AGE_S  # the collector comes by every few minutes, and takes what is half as old


@dataclass(frozen=True)
class _Kind:
    """``part``: the third part of such an object's name; ``noun``: what one is called."""

    part: str
    noun: str


_KINDS = (_Kind("generations", "index file"), _Kind("packs", "pack"), _Kind("staging", "staged object"))


def find_orphans(
    catalog: Catalog, objects: ObjectStore, *, tenant: TenantId, manifests: Sequence[Manifest], now: float
) -> Iterator[Finding]:
    """Yield a note for each kind of object of which some are nobody's.

    Args:
        manifests: every kept version of the tenant that can be read. Where one cannot be, ask not: nobody knows what
            it names.
    """
    # Listed before the names are read: what is named since is young, or was named before.
    old = [info for info in objects.list(paths.tenant_prefix(tenant)) if now - info.modified_at >= LEFT_ALONE_S]
    named = {name for manifest in manifests for name in manifest.file_names}
    with catalog.read() as connection:
        named |= kept_names(connection, tenant) | waiting_outputs(connection, tenant=tenant)
        for kind in _KINDS:
            found = [info for info in old if info.name.split("/")[2] == kind.part]
            if kind.part == "packs":
                used = used_packs(connection, found)
                found = [info for info in found if info.name not in used]
            elif kind.part == "staging":
                batches = known_batches(connection, found)
                found = [info for info in found if paths.batch_of(info.name) not in batches]
            orphans = [info for info in found if info.name not in named]
            if orphans:
                yield _note(orphans, noun=kind.noun, tenant=tenant, now=now)


def find_unknown_tenants(objects: ObjectStore, *, known: AbstractSet[TenantId]) -> Iterator[Finding]:
    """Yield a warning for each tenant that has objects but is not in the catalog.

    ``known``: a set, for each object is looked up in it.
    """
    counts: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for info in objects.list("tenants/"):
        tenant = info.name.split("/")[1]
        if tenant not in known:
            counts[tenant] = counts.get(tenant, 0) + 1
            sizes[tenant] = sizes.get(tenant, 0) + info.size_bytes
    for tenant, count in sorted(counts.items()):
        yield Finding(
            severity="warning",
            check="orphans",
            object=paths.tenant_prefix(TenantId(tenant)),
            problem=f"{counted(count, 'object')} of {sizes[tenant]:,} bytes under a tenant that is not in the catalog: "
            "nobody serves it, and no collector looks there",
            advice="is this the catalog of this object store? If not, restore it, or make it again from the objects "
            "with `penstock doctor --rebuild-catalog`; if so, delete the folder",
        )


def find_stale_scratch(objects: ObjectStore, *, now: float) -> Iterator[Finding]:
    """Yield a note when dead processes left files in the scratch directory."""
    found: list[ObjectInfo] = []
    for path in objects.scratch().iterdir():
        with suppress(FileNotFoundError):
            status = path.stat()
            if path.is_file() and now - status.st_mtime >= LEFT_ALONE_S:
                found.append(ObjectInfo(str(path), status.st_size, status.st_mtime))
    if found:
        yield _note(found, noun="scratch file", tenant=None, now=now, check="scratch")


def _note(
    found: Sequence[ObjectInfo], *, noun: str, tenant: TenantId | None, now: float, check: Check = "orphans"
) -> Finding:
    oldest = min(found, key=lambda info: info.modified_at)
    size_bytes = sum(info.size_bytes for info in found)
    return Finding(
        severity="note",
        check=check,
        object=oldest.name,
        problem=f"nobody names {counted(len(found), noun)} of {size_bytes:,} bytes; this is the oldest,"
        f" {counted(round((now - oldest.modified_at) / 3_600), 'hour')} old",
        advice="nothing: the maintenance role deletes such objects. If one stays for days, its log says why",
        tenant=tenant,
    )
