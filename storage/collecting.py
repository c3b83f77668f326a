"""Collecting garbage: objects that nothing leads to any more. What is needed, the catalog says.

How it can delete files while others write and commit, whatever their clocks say, is told in ``grace.py``. It deletes
inside the transactions that shut the others out, and must: between a look and a delete outside of it somebody could
commit what leads to the file, having found it there. What can be read before is: manifests, which never change.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy import Connection, select

from . import paths
from .catalog.completion import OPEN_BATCH
from .catalog.engine import Catalog
from .catalog.generations import read_generations
from .catalog.retention import Retention, any_over, expire_versions, retained_manifests
from .catalog.sweeps import Guard, begin_sweep, end_sweep, guard_of_generation, guard_of_tenant
from .catalog.tables import batches, versions
from .catalog.values import slices
from .errors import Damaged, Missing, Unsupported
from .grace import MIN_AGE_S
from .ids import GenerationId, TenantId
from .named_files import NamedFiles
from .objects.store import ObjectInfo, ObjectStore
from .segments.manifests import Swap

log = logging.getLogger(__name__)

_RETENTION = Retention()
_PACKS_PER_TRANSACTION = 20  # while it lasts no document of the tenant is accepted
_LOOKS_MAX = 3
_FILES_PER_TRANSACTION = 20  # while it lasts nothing is published in the generation


@dataclass(frozen=True)
class Collected:
    """What was deleted."""

    objects: int = 0
    size_bytes: int = 0

    def __add__(self, other: "Collected") -> "Collected":
        return Collected(self.objects + other.objects, self.size_bytes + other.size_bytes)


def collect_generations(
    catalog: Catalog,
    objects: ObjectStore,
    *,
    tenant: TenantId,
    now: float,
    retention: Retention = _RETENTION,
    min_age_s: float = MIN_AGE_S,
    named: NamedFiles | None = None,
) -> Collected:
    """End a tenant's versions past retention; delete what nothing leads to, and all of generations that are no more.

    ``named``: the same at each call, so that a manifest is read once. It is for one object store and one thread.

    When a manifest that is kept cannot be read, nothing of the tenant is deleted, with a log line: nobody knows what
    it named. Writers of a generation wait while a few of its files are deleted; on SQLite, every other writer.
    """
    with catalog.read() as connection:
        over = any_over(connection, tenant=tenant, now=now, retention=retention)
    if over:
        with catalog.write("expire_versions") as connection:
            expire_versions(connection, tenant=tenant, now=now, retention=retention)
    old: dict[GenerationId, list[ObjectInfo]] = {}
    for info in objects.list(paths.generations_prefix(tenant)):
        if now - info.modified_at >= min_age_s:
            old.setdefault(paths.generation_of(info.name), []).append(info)
    named, collected = named or NamedFiles(objects), Collected()
    try:
        listed = [info.name for infos in old.values() for info in infos]
        kept = _kept_now(catalog, named, listed, tenant=tenant)
        for generation_id, infos in old.items():
            # Manifests first, so that a crash leaves none that names a missing file.
            unnamed = sorted(
                (info for info in infos if info.name not in kept),
                key=lambda info: paths.manifest_version(info.name) is None,
            )
            for some in slices(unnamed, _FILES_PER_TRANSACTION):
                collected += _collect(catalog, objects, named, some, tenant=tenant, generation_id=generation_id)
    except (Damaged, Unsupported) as error:
        log.warning("nothing of %s is collected: %s", tenant, error, extra={"action": "collect_refused"})
    finally:
        named.trim()
    return collected


def list_staged(
    objects: ObjectStore, *, tenant: TenantId, now: float, min_age_s: float = MIN_AGE_S
) -> list[ObjectInfo]:
    """Return what was staged for batches of the tenant, and is old enough to be deleted."""
    return [info for info in objects.list(paths.staging_prefix(tenant)) if now - info.modified_at >= min_age_s]


def collect_staged(objects: ObjectStore, staged: Iterable[ObjectInfo]) -> Collected:
    """Delete what finished batches staged. The caller vouches that nobody will read it again."""
    return _delete(objects, staged)


def collect_lost_staging(
    catalog: Catalog, objects: ObjectStore, *, tenant: TenantId, staged: Iterable[ObjectInfo]
) -> Collected:
    """Delete what was staged for batches that the ledger does not have: of deleted collections, or never committed.

    Chunkers of this tenant wait while a few objects are looked at and deleted; on SQLite, every other writer.

    Args:
        staged: what ``list_staged`` found.
    """
    old = list(staged)
    with catalog.read() as connection:
        known = known_batches(connection, old)
    lost = [info for info in old if paths.batch_of(info.name) not in known]
    collected = Collected()
    for some in slices(lost, _FILES_PER_TRANSACTION):
        with suppress(_Overtaken), _sweep(catalog, guard_of_tenant(tenant), "collect_staging") as connection:
            # Who commits a batch holds the tenant, and knows that what he staged is there.
            known = known_batches(connection, some)
            collected += _delete(objects, (info for info in some if paths.batch_of(info.name) not in known))
    return collected


def known_batches(connection: Connection, infos: Iterable[ObjectInfo]) -> set[str]:
    """Return the batches among those that staged these objects which the ledger has."""
    found: set[str] = set()
    for some in slices(sorted({paths.batch_of(info.name) for info in infos})):
        found.update(connection.scalars(select(batches.c.id).where(batches.c.id.in_(some))))
    return found


def collect_packs(
    catalog: Catalog, objects: ObjectStore, *, tenant: TenantId, now: float, min_age_s: float = MIN_AGE_S
) -> Collected:
    """Delete packs that no document version refers to: of versions that were pruned, or never committed.

    Accepts of this tenant wait while a few packs are looked at and deleted, and these wait for accepts under way; on
    SQLite, for every other writer.
    """
    old = [info for info in objects.list(paths.packs_prefix(tenant)) if now - info.modified_at >= min_age_s]
    with catalog.read() as connection:
        used = used_packs(connection, old)
    unused = [info for info in old if info.name not in used]
    collected = Collected()
    for some in slices(unused, _PACKS_PER_TRANSACTION):
        with suppress(_Overtaken), _sweep(catalog, guard_of_tenant(tenant), "collect_packs") as connection:
            # Every accept holds its tenant from its first statement on: none is between its look and its commit.
            used = used_packs(connection, some)
            # Looked at again: the same bytes may have been submitted since, which makes the pack young.
            found = (objects.find(info.name) for info in some if info.name not in used)
            collected += _delete(objects, (info for info in found if info and now - info.modified_at >= min_age_s))
    return collected


def used_packs(connection: Connection, infos: Iterable[ObjectInfo]) -> set[str]:
    """Return the names of those of these packs that a document version refers to."""
    found: set[str] = set()
    for some in slices([info.name for info in infos]):
        found.update(connection.scalars(select(versions.c.pack).where(versions.c.pack.in_(some)).distinct()))
    return found


def collect_scratch(objects: ObjectStore, *, now: float, min_age_s: float = MIN_AGE_S) -> Collected:
    """Delete what processes that died left in the scratch directory."""
    collected = Collected()
    for path in objects.scratch().iterdir():
        with suppress(FileNotFoundError):
            status = path.stat()
            if path.is_file() and now - status.st_mtime >= min_age_s:
                path.unlink()
                collected += Collected(1, status.st_size)
    return collected


def _collect(
    catalog: Catalog,
    objects: ObjectStore,
    named: NamedFiles,
    infos: Sequence[ObjectInfo],
    *,
    tenant: TenantId,
    generation_id: GenerationId,
) -> Collected:
    """Delete those of a generation's files to which nothing leads, now that nobody can commit what would.

    A version that was published since the last look is read first, with nobody waiting, and everything asked again.
    Where versions come faster than that, the files stay until the next pass.
    """
    for _ in range(_LOOKS_MAX):
        with suppress(_Overtaken, _Moved):
            with _generation_sweep(catalog, tenant=tenant, generation_id=generation_id) as connection:
                leads = _read_leads(connection, tenant=tenant)
                if not named.unread(leads.manifests):
                    kept = leads.kept(named, [info.name for info in infos])
                    return _delete(objects, (info for info in infos if info.name not in kept))
            _read(catalog, named, leads, tenant=tenant)
    return Collected()


class _Overtaken(Exception):
    """Another collector began after this one, or the row that guards what it deletes went: look again, or next time."""


@contextmanager
def _sweep(catalog: Catalog, guard: Guard, what: str) -> Iterator[Connection]:
    """Give a transaction that holds the row of ``guard`` alone, in which what it guards may be deleted.

    Raises:
        _Overtaken: at the beginning.
    """
    number = begin_sweep(catalog, guard)
    with catalog.write(what) as connection:
        if number is None or not end_sweep(connection, guard, number):
            raise _Overtaken
        yield connection


@contextmanager
def _generation_sweep(catalog: Catalog, *, tenant: TenantId, generation_id: GenerationId) -> Iterator[Connection]:
    """Give a transaction as `_sweep` does. Files of a generation that is gone, or is being made, are the tenant's."""
    with catalog.read() as connection:
        is_there = generation_id in read_generations(connection, [generation_id])
    guard = guard_of_generation(generation_id) if is_there else guard_of_tenant(tenant)
    with _sweep(catalog, guard, "collect_generation") as connection:
        if not is_there and generation_id in read_generations(connection, [generation_id]):
            raise _Overtaken  # it was made meanwhile
        yield connection


def _kept_now(catalog: Catalog, named: NamedFiles, objects: Collection[str], *, tenant: TenantId) -> set[str]:
    """Return those of these objects to which something led a moment ago."""
    for _ in range(_LOOKS_MAX):
        with catalog.read() as connection:
            leads = _read_leads(connection, tenant=tenant)
        with suppress(_Moved):
            _read(catalog, named, leads, tenant=tenant)
            return leads.kept(named, objects)
    return set(objects)


class _Moved(Exception):
    """A version was over before it was read: look again."""


@dataclass(frozen=True)
class _Leads:
    """What in the catalog leads to objects below the tenant's generations."""

    manifests: Collection[str]
    outputs: set[str]

    def kept(self, named: NamedFiles, objects: Collection[str]) -> set[str]:
        """Return those of the objects to which it leads; all manifests were read."""
        return named.among(objects, manifests=self.manifests) | self.outputs.intersection(objects)


def _read_leads(connection: Connection, *, tenant: TenantId) -> _Leads:
    outputs = waiting_outputs(connection, tenant=tenant)
    # The merges were read first: a publish in between names what its swap batch did.
    return _Leads(retained_manifests(connection, tenant=tenant).keys(), outputs)


def _read(catalog: Catalog, named: NamedFiles, leads: _Leads, *, tenant: TenantId) -> None:
    """Read the manifests that were not read yet.

    Raises:
        _Moved: one was not kept any more. Damaged, Unsupported: one that is kept cannot be read.
    """
    unread = named.unread(leads.manifests)
    try:
        named.read(unread)
    except Missing as error:
        with catalog.read() as connection:
            now = retained_manifests(connection, tenant=tenant)
        if now.keys() >= set(unread):  # else another collector was at work
            raise
        raise _Moved from error


def waiting_outputs(connection: Connection, *, tenant: TenantId) -> set[str]:
    """Return the files that merges of the tenant have built and that wait for their swap."""
    waiting = select(batches.c.details).where(batches.c.tenant_id == tenant, batches.c.stage == "swap")
    details = connection.scalars(waiting.where(batches.c.state.in_(OPEN_BATCH))).all()
    return {file.name for one in details for file in Swap.from_details(one).output.all_files}


def _delete(objects: ObjectStore, infos: Iterable[ObjectInfo]) -> Collected:
    collected = Collected()
    for info in infos:
        objects.delete(info.name)
        collected += Collected(1, info.size_bytes)
    return collected
