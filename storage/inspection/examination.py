"""Everything that is kept, looked at once: manifests, files, graphs, contents, packs, orphans. It changes nothing.

It is safe beside a running service: what was published, pruned or collected while it looked is no finding.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..catalog.engine import Catalog
from ..catalog.tenants import list_tenants
from ..errors import NotFound, Unavailable
from ..ids import TenantId
from ..objects.store import ObjectStore
from .checksums import CheckedFiles
from .examined import ExaminedGeneration
from .findings import Finding, is_clean
from .generations import GenerationExaminer
from .orphans import find_orphans, find_stale_scratch, find_unknown_tenants
from .packs import NeededPack, check_packs, read_needed_packs
from .statements import kept_names, read_stated

ROWS_PER_GRAPH = 1_000


class Progress(Protocol):
    """Told how far the reading of files has come, and the search for rows of graphs, which are turned to by turns."""

    def begin(self, total_bytes: int, total_rows: int) -> None: ...

    def advance(self, size_bytes: int) -> None: ...

    def searched(self, rows: int) -> None: ...


@dataclass
class Examination:
    """What was looked at, and what was found."""

    tenants: Sequence[TenantId]
    examiner: GenerationExaminer
    generations: list[ExaminedGeneration] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    size_bytes: int = 0

    @property
    def clean(self) -> bool:
        return is_clean(self.findings)

    def checked(self) -> dict[str, int]:
        """Return how much was looked at."""
        reached = [each for one in self.generations for each in one.lost_rows.values()]
        return {
            "tenants": len(self.tenants),
            "generations": len(self.generations),
            "versions": sum(len(one.stated.versions) for one in self.generations),
            "files": self.files,
            "size_bytes": self.size_bytes,
            "documents": sum(one.documents for one in self.generations),
            "rows_searched": sum(each.asked for each in reached),
        }


def examine(
    catalog: Catalog,
    objects: ObjectStore,
    *,
    tenant: TenantId | None = None,
    now: float,
    progress: Progress,
    rows_per_graph: int | None = ROWS_PER_GRAPH,
    former: Examination | None = None,
) -> Examination:
    """Look at all that is kept, or at one tenant's.

    Args:
        rows_per_graph: how many rows of each graph are looked for by their own vector; None: all.
        former: one that was made a moment ago: what it read is not read again.

    Raises:
        NotFound: there is no such tenant.
        Unsupported: something was written by a newer program: nothing is wrong with it.
        Unavailable: the catalog or the object store does not answer, or is not the one that the catalog speaks of.
    """
    known = [info.id for info in list_tenants(catalog)]
    if tenant is not None and tenant not in known:
        raise NotFound(f"there is no tenant {tenant!r}")
    checked = former.examiner.checked if former else CheckedFiles(objects, on_bytes=progress.advance)
    examiner = GenerationExaminer(catalog, objects, checked, rows_per_graph=rows_per_graph, on_rows=progress.searched)
    result = Examination([tenant] if tenant else known, examiner)
    for one in result.tenants:
        result.generations += [examiner.read(stated) for stated in read_stated(catalog, one)]
    packs = [pack for some in read_needed_packs(catalog, result.tenants).values() for pack in some]
    _refuse_another_store(objects, result, packs)
    progress.begin(_total_bytes(objects, result, packs), _total_rows(result, most=rows_per_graph))
    for generation in result.generations:
        examiner.examine(generation)
    _finish_all(result, catalog, objects, now=now)
    if tenant is None:
        result.findings += find_unknown_tenants(objects, known=set(known))
        result.findings += find_stale_scratch(objects, now=now)
    result.files, result.size_bytes = checked.count, checked.size_bytes
    return result


def _finish_all(result: Examination, catalog: Catalog, objects: ObjectStore, *, now: float) -> None:
    """Add what was found of each tenant. What is read of all of them is read once: there may be thousands."""
    checked = result.examiner.checked
    of_tenant = defaultdict[TenantId, list[ExaminedGeneration]](list)
    for generation in result.generations:
        of_tenant[generation.stated.info.tenant_id].append(generation)
    for tenant, packs in read_needed_packs(catalog, result.tenants).items():
        result.findings += _of_generations(of_tenant[tenant], catalog, tenant=tenant)
        result.findings += check_packs(packs, catalog, objects, checked, tenant=tenant)
        result.findings += _orphans(of_tenant[tenant], catalog, objects, tenant=tenant, now=now)


def _of_generations(mine: Sequence[ExaminedGeneration], catalog: Catalog, *, tenant: TenantId) -> Iterator[Finding]:
    """Yield what was found in a tenant's generations, without what has gone since."""
    with catalog.read() as connection:
        kept = kept_names(connection, tenant)
    for generation in mine:
        gone = {version.name for version in generation.stated.versions} - kept
        named = [manifest.file_names for name, manifest in generation.manifests.items() if name in kept]
        files = frozenset[str]().union(*named)
        still = kept | files | {generation.stated.info.id}
        yield from (one for one in generation.findings if not gone or one.object in still)


def _orphans(
    mine: Sequence[ExaminedGeneration], catalog: Catalog, objects: ObjectStore, *, tenant: TenantId, now: float
) -> Iterator[Finding]:
    """Yield what a tenant's versions do not name, if all of them can be read."""
    manifests = [manifest for generation in mine for manifest in generation.manifests.values()]
    if all(name in generation.manifests for generation in mine for name in generation.stated.names):
        yield from find_orphans(catalog, objects, tenant=tenant, manifests=manifests, now=now)


def _refuse_another_store(objects: ObjectStore, result: Examination, packs: Sequence[NeededPack]) -> None:
    """Tell an object store that is not there, or another one, from one whose objects are all lost.

    Only the first is likely; and a repair would take it for the second.
    """
    named = [name for generation in result.generations for name in generation.stated.names]
    named += [pack.name for pack in packs]
    if named and not any(objects.exists(name) for name in named):
        raise Unavailable(
            f"the object store has none of the {len(named):,} manifests and packs that the catalog names, such as "
            f"{named[0]}: is it the right one, and mounted? Nothing was looked at, and nothing changed"
        )


def _total_bytes(objects: ObjectStore, result: Examination, packs: Sequence[NeededPack]) -> int:
    files = {
        file.name: file.size_bytes
        for generation in result.generations
        for manifest in generation.manifests.values()
        for entry in manifest.segments
        for file in entry.all_files
    }
    found = (objects.find(pack.name) for pack in packs)
    return sum(files.values()) + sum(info.size_bytes for info in found if info)


def _total_rows(result: Examination, *, most: int | None) -> int:
    current = [one.current.segments for one in result.generations if one.current]
    live = [entry.live_count for segments in current for entry in segments if entry.kind == "graph"]
    return sum(live if most is None else (min(count, most) for count in live))
