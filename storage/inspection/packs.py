"""Packs that documents may need again: of what is being worked on now, and of what would be embedded anew later."""

from collections.abc import Iterator
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


def read_needed_packs(catalog: Catalog, tenant: TenantId) -> list[NeededPack]:
    """Return the packs that documents of the tenant refer to, by name."""
    counted = sa.select(versions.c.pack, versions.c.state, sa.func.count().label("documents"))
    counted = counted.where(versions.c.tenant_id == tenant, versions.c.state.in_(NEEDED), versions.c.pack != "")
    found: dict[str, list[int]] = {}
    with catalog.read() as connection:
        for row in connection.execute(counted.group_by(versions.c.pack, versions.c.state)):
            counts = found.setdefault(row.pack, [0, 0])
            counts[row.state == "indexed"] += row.documents
    return [NeededPack(name, *counts) for name, counts in sorted(found.items())]


def check_packs(
    catalog: Catalog, objects: ObjectStore, checked: CheckedFiles, *, tenant: TenantId
) -> Iterator[Finding]:
    """Yield what is wrong with the packs of a tenant."""
    wrong = {
        pack.name: problem
        for pack in read_needed_packs(catalog, tenant)
        if (problem := checked.problem_of_named(pack.name))
    }
    if not wrong:
        return
    # Asked again: the versions that needed a pack may be gone since, and then the pack with them.
    for pack in read_needed_packs(catalog, tenant):
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
