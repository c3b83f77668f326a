"""Packs that documents may need again: of what is being worked on now, and of what would be embedded anew later."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from ..catalog.completion import UNFINISHED
from ..catalog.engine import Catalog
from ..catalog.tables import versions
from ..ids import TenantId
from ..objects.store import ObjectStore
from .checksums import CheckedFiles
from .findings import Finding
from .wording import counted

NEEDED = (*UNFINISHED, "indexed")


@dataclass(frozen=True)
class NeededPack:
    """``unfinished`` documents read it before they are indexed; ``indexed`` ones only to be indexed again."""

    name: str
    unfinished: int
    indexed: int


def read_needed_packs(catalog: Catalog, tenants: Iterable[TenantId]) -> dict[TenantId, list[NeededPack]]:
    """Return the packs that documents of each of these tenants refer to, by name.

    All in one go: a look at the documents of one tenant is a look at those of all.
    """
    key = (versions.c.tenant_id, versions.c.pack, versions.c.state)
    counted = sa.select(*key, sa.func.count().label("documents"))
    counted = counted.where(versions.c.state.in_(NEEDED), versions.c.pack != "").group_by(*key)
    found: dict[TenantId, dict[str, list[int]]] = {tenant: {} for tenant in tenants}
    if len(found) == 1:
        counted = counted.where(versions.c.tenant_id.in_(found))
    with catalog.read() as connection:
        for row in connection.execute(counted):
            if row.tenant_id in found:
                counts = found[TenantId(row.tenant_id)].setdefault(row.pack, [0, 0])
                counts[row.state == "indexed"] += row.documents
    return {
        tenant: [NeededPack(name, *counts) for name, counts in sorted(packs.items())] for tenant, packs in found.items()
    }


def check_packs(
    needed: Iterable[NeededPack],
    catalog: Catalog,
    objects: ObjectStore,
    checked: CheckedFiles,
    *,
    tenant: TenantId,
) -> Iterator[Finding]:
    """Yield what is wrong with the packs of a tenant. ``needed``: as they were a moment ago."""
    wrong = {pack.name: problem for pack in needed if (problem := checked.problem_of_named(pack.name))}
    if not wrong:
        return
    # Asked again: the versions that needed a pack may be gone since, and then the pack with them.
    for pack in read_needed_packs(catalog, [tenant])[tenant]:
        if pack.name in wrong and (objects.find(pack.name) is None or "missing" not in wrong[pack.name]):
            yield _finding(pack, wrong[pack.name], tenant=tenant)


def _finding(pack: NeededPack, problem: str, *, tenant: TenantId) -> Finding:
    waiting = f"{counted(pack.unfinished, 'document')} still to be indexed will fail; " if pack.unfinished else ""
    return Finding(
        severity="error" if pack.unfinished else "warning",
        check="packs",
        object=pack.name,
        problem=f"{problem}: {waiting}{counted(pack.indexed, 'indexed document')} can be found as before, "
        "but not be indexed again",
        advice="restore it from a backup, or submit these documents again: that writes their bytes anew",
        tenant=tenant,
    )
