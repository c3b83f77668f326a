"""Mending what an examination found, as far as that is safe: a new version of what is intact, and restarts.

A repair publishes like any writer: under the lease of the shard, files first, then one transaction. Nothing is edited,
and nothing is deleted that could not be made again. What it cannot mend it leaves, and the examination tells it again.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .. import ledger
from ..catalog.engine import Catalog
from ..catalog.manifests import Origin, record_manifest
from ..catalog.retention import is_needed
from ..catalog.sweeps import guard_of_generation
from ..catalog.tables import generations, manifests
from ..errors import Conflict, Fenced, StorageError, Unavailable
from ..failpoints import hit
from ..grace import Lookout, check_not_collected, check_there
from ..ids import GenerationId, ManifestVersion, TenantId
from ..objects.store import ObjectStore
from ..publishing.commits import advance, read_standing
from ..publishing.leases import acquire_lease, keeping_lease, renew_lease
from ..publishing.successors import store_successor
from ..segments.manifests import Manifest
from .contents import read_indexed
from .examination import Examination
from .examined import ExaminedGeneration, counts_of
from .generations import GenerationExaminer
from .reconciling import Reconciled, read_trims, reconcile
from .restarts import Restart, plan_restarts, restart
from .salvage import Salvaged, salvage
from .statements import read_stated_generation
from .wording import counted, numbered

LEASE_S = 120.0
LOOK_AGAIN_S = 0.5


@dataclass(frozen=True)
class Repair:
    """What was done to ``object``, or why nothing could be."""

    tenant: TenantId
    object: str
    done: bool
    told: str


class Repairer:
    """Mends generations one after the other.

    Args:
        owner: names this process in leases; never used twice.
        wait_s: how long to wait for the writer of a shard to give its lease back, which it does when it is idle.
        waiting: told once for each wait, in words for who sits before it.
    """

    def __init__(
        self,
        catalog: Catalog,
        objects: ObjectStore,
        *,
        owner: str,
        wait_s: float = 60.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        waiting: Callable[[str], None] = lambda _told: None,
    ) -> None:
        self._catalog = catalog
        self._objects = objects
        self._owner = owner
        self._wait_s = wait_s
        self._clock = clock
        self._sleep = sleep
        self._waiting = waiting

    def repair(self, examination: Examination) -> Iterator[Repair]:
        """Mend what can be mended, and say what was done. Each step is one transaction, and is harmless twice."""
        for found in examination.generations:
            try:
                yield from self._repair(found, examination.examiner)
            except (StorageError, OSError) as error:
                yield self._told(found, f"could not be mended: {error}", done=False)

    def _repair(self, found: ExaminedGeneration, examiner: GenerationExaminer) -> Iterator[Repair]:
        yield from self._mend_rows(found)
        for entry in found.lost_graphs:
            yield self._rebuild(found, entry.id)
        if _needs_a_version(found):
            yield from self._publish(found, examiner)
        else:
            yield from self._forget_damaged(found)

    def _mend_rows(self, found: ExaminedGeneration) -> Iterator[Repair]:
        """Make the numbers in the catalog those of the manifests that it names."""
        stated, current = found.stated, found.current
        corrected: list[int] = []
        for version in stated.versions:
            manifest = found.manifests.get(version.name)
            if manifest is not None and counts_of(manifest) != version.counts:
                self._set_counts(stated.info.id, version.version, manifest)
                corrected.append(version.version)
        if corrected:
            yield self._told(found, f"what the catalog says of {numbered(corrected)} was corrected")
        if current is None or found.contradicts:
            return
        if current.live_chunks != stated.info.live_chunks:
            mine = (generations.c.id == stated.info.id, generations.c.manifest == stated.info.manifest)
            with self._catalog.write("repair_counts") as connection:
                counted = sa.update(generations).where(*mine)
                connection.execute(counted.values(live_chunks=current.live_chunks))
            yield self._told(found, f"the number of live chunks was corrected to {current.live_chunks:,}")
        if stated.current is None and stated.info.manifest is not None:
            with self._catalog.write("repair_history") as connection:
                record_manifest(connection, current, name=stated.info.manifest, origin=Origin("repair"))
            yield self._told(found, f"version {current.version} was entered into the history again")

    def _set_counts(self, generation_id: GenerationId, version: ManifestVersion, manifest: Manifest) -> None:
        segment_count, live_chunks, size_bytes = counts_of(manifest)
        values = {"segment_count": segment_count, "live_chunks": live_chunks, "size_bytes": size_bytes}
        mine = (manifests.c.generation_id == generation_id, manifests.c.version == version)
        with self._catalog.write("repair_counts") as connection:
            connection.execute(sa.update(manifests).where(*mine).values(values))

    def _publish(self, found: ExaminedGeneration, examiner: GenerationExaminer) -> Iterator[Repair]:
        shard = found.stated.info.shard
        epoch = self._lease(shard)
        # A large segment takes longer than a lease lasts.
        with keeping_lease(
            self._catalog, shard=shard, owner=self._owner, epoch=epoch, ttl_s=LEASE_S, clock=self._clock
        ):
            # Nobody else publishes from here on. What came since the examination is read now; the rest is known.
            with self._catalog.read() as connection:
                stated = read_stated_generation(connection, found.stated.info.id)
            again = examiner.read(stated)
            examiner.examine(again, graphs=False)
            if again.contradicts:
                raise Conflict("catalog and manifest contradict each other: restore both from one backup")
            if _needs_a_version(again):
                yield from self._publish_mended(again, examiner, epoch=epoch)
            yield from self._forget_damaged(again)

    def _lease(self, shard: int) -> int:
        until, told = time.monotonic() + self._wait_s, False
        while True:
            now = self._clock()
            epoch = acquire_lease(self._catalog, shard=shard, owner=self._owner, ttl_s=LEASE_S, now=now)
            if epoch is not None:
                return epoch
            if not told:
                most = f"for {self._wait_s:g} s at most; `penstock pause` makes it idle within half a minute"
                self._waiting(f"waiting until the writer of shard {shard} is idle, {most}")
                told = True
            if time.monotonic() >= until:
                raise Unavailable(
                    f"the writer of shard {shard} is busy: `penstock pause`, then this again, then `penstock resume`"
                )
            self._sleep(LOOK_AGAIN_S)

    def _publish_mended(
        self, found: ExaminedGeneration, examiner: GenerationExaminer, *, epoch: int
    ) -> Iterator[Repair]:
        info = found.stated.info
        standing = read_standing(self._catalog, info.id, shard=info.shard, epoch=epoch)
        since = Lookout.begin(self._catalog, guard_of_generation(info.id))
        salvaged = salvage(self._objects, examiner.checked, found)
        base = replace(standing.empty, segments=list(salvaged.segments))
        with self._catalog.read() as connection:
            indexed = read_indexed(connection, info.collection_id)
            trims = read_trims(connection, info.collection_id, list(indexed))
        mended = reconcile(self._objects, base, indexed=indexed, trims=trims)
        with self._catalog.read() as connection:
            restarts = plan_restarts(
                connection,
                examiner.checked,
                collection_id=info.collection_id,
                documents=mended.lost,
                trimmed={trim.document_id for trim in trims},
            )
        name, manifest = store_successor(
            self._objects, mended.manifest, parent=standing.name, epoch=epoch, now=self._clock()
        )
        self._renew(info.shard, epoch=epoch)
        hit("repair.files_written")
        named = [name, *sorted(manifest.file_names)]
        check_there(self._objects, named)
        with self._catalog.write("repair") as connection:
            advance(connection, standing, name=name, manifest=manifest, origin=Origin("repair"))
            check_not_collected(connection, self._objects, named, since=since)
            restart(connection, restarts, now=self._clock())
        yield self._told(found, _words(manifest, salvaged, mended, restarts))

    def _renew(self, shard: int, *, epoch: int) -> None:
        now = self._clock()
        if not renew_lease(self._catalog, shard=shard, owner=self._owner, epoch=epoch, ttl_s=LEASE_S, now=now):
            raise Fenced(f"another writer took shard {shard} over: run the repair again")

    def _rebuild(self, found: ExaminedGeneration, segment_id: str) -> Repair:
        details = {"segments": [segment_id], "afresh": True}
        opened = ledger.open_merge(
            self._catalog, generation_id=found.stated.info.id, details=details, now=self._clock()
        )  # fmt: skip
        if opened is None:
            return self._told(found, f"graph {segment_id} waits: another merge is under way; try again", done=False)
        return self._told(found, f"graph {segment_id} is built anew by the maintenance role, as batch {opened}")

    def _forget_damaged(self, found: ExaminedGeneration) -> Iterator[Repair]:
        """Let go of past versions that cannot be opened and that nobody keeps: retention would, a little later."""
        ended: list[int] = []
        forgotten: list[int] = []
        try:
            for version in self._damaged_past(found):
                with self._catalog.write("repair_history") as connection:
                    refused, gone = _forget(connection, found.stated.info.id, version, now=self._clock())
                ended += [version] * refused
                forgotten += [version] * gone
        finally:  # what was done is told, whatever stopped the rest
            if ended:
                yield self._told(found, f"rolling back to {numbered(ended)} was ended, because of damage")
            if forgotten:
                state = "is not kept any more: it" if len(forgotten) == 1 else "are not kept any more: they"
                yield self._told(found, f"{numbered(forgotten)} {state} could not be opened")

    def _damaged_past(self, found: ExaminedGeneration) -> list[ManifestVersion]:
        with self._catalog.read() as connection:
            pointer = read_stated_generation(connection, found.stated.info.id).info.manifest
        past = [version for version in found.stated.versions if version.name != pointer]
        return [version.version for version in past if _is_damaged(found, version.name)]

    def _told(self, found: ExaminedGeneration, told: str, *, done: bool = True) -> Repair:
        info = found.stated.info
        return Repair(info.tenant_id, f"collection {found.stated.collection!r}", done, told)


def _is_damaged(found: ExaminedGeneration, name: str) -> bool:
    """Say whether a version cannot be read, or names something broken."""
    manifest = found.manifests.get(name)
    return manifest is None or any(found.is_broken(entry) for entry in manifest.segments)


def _needs_a_version(found: ExaminedGeneration) -> bool:
    """Say whether the current version cannot be read, names something broken, or holds what it must not."""
    if not found.is_served or found.stated.info.manifest is None or found.contradicts:
        return False
    if _is_damaged(found, found.stated.info.manifest):
        return True
    return bool(found.difference.lost or found.difference.stray)


def _forget(connection: Connection, generation_id: GenerationId, version: int, *, now: float) -> tuple[bool, bool]:
    """End a rollback to a damaged version, and let go of it, as retention does.

    Whoever tags, leases, forks or rolls back to it holds its row meanwhile. Returns what of both was done.
    """
    mine = (manifests.c.generation_id == generation_id, manifests.c.version == version)
    held = sa.select(manifests.c.version).where(*mine).with_for_update(skip_locked=True)
    if connection.execute(held).first() is None:
        return False, False
    told = f"version {version} is damaged: choose another"
    refused = ledger.refuse_rollback(connection, generation_id=generation_id, version=version, error=told, now=now)
    gone = sa.delete(manifests).where(*mine, ~sa.or_(*is_needed()))
    return refused, connection.execute(gone).rowcount == 1


def _words(manifest: Manifest, salvaged: Salvaged, mended: Reconciled, restarts: list[Restart]) -> str:
    failed = sum(one.error is not None for one in restarts)
    parts = [
        ("back from past versions", salvaged.restored, "segment"),
        ("written anew from intact parts", salvaged.rewritten, "segment"),
        ("written anew without the rows whose vectors are damaged", salvaged.torn, "segment"),
        ("taken out", mended.buried, "chunk"),
        ("to be indexed again from packs", len(restarts) - failed, "document"),
        ("failed, to be submitted again", failed, "document"),
    ]
    told = "; ".join(f"{counted(number, noun)} {what}" for what, number, noun in parts if number)
    return f"version {manifest.version} was published: {told or 'it names what is intact'}"
