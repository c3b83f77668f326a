"""What the writer of a shard does for generations that follow others, in the index role's process.

It chooses what is copied next, publishes what was embedded, and lets one take over from the other.
"""

import logging
from contextlib import suppress

from sqlalchemy import Connection

from penstock.storage import ledger
from penstock.storage.errors import Conflict, StorageError
from penstock.storage.failpoints import hit
from penstock.storage.publishing.publisher import PublishedManifest, Publisher, TakingOver
from penstock.storage.reembedding import steps
from penstock.storage.reembedding.copying import plan_next
from penstock.storage.reembedding.records import ReembeddingInfo
from penstock.storage.reembedding.slices import EndedGroup
from penstock.storage.reembedding.steps import Situation, claim_follow
from penstock.storage.reembedding.takeover import finish_takeover
from penstock.storage.segments.differences import Comparison
from penstock.storage.segments.manifests import Manifest, read_manifest

from . import staging
from .claims import Claims
from .components import Components
from .packing import part_chunks_of
from .planning import plan
from .upkeep import Upkeep, announce, ids_of

log = logging.getLogger(__name__)

STEPS_AT_ONCE = 12  # then others have their turn


class Following:
    """Part of the index role's process. Each call looks after one re-embedding, and raises what says to look again."""

    def __init__(self, components: Components, claims: Claims, publisher: Publisher, upkeep: Upkeep) -> None:
        self._components = components
        self._claims = claims
        self._publisher = publisher
        self._upkeep = upkeep
        self._compared: tuple[tuple[str, ...], Comparison] | None = None  # the last one: opening it takes a while

    def follow(self, shard: int, *, epoch: int) -> bool:
        """Take the next steps of one re-embedding of the shard; returns whether there is more to do at once."""
        with self._upkeep.claimed(claim_follow, shard) as claim:
            if claim is None:
                return False
            catalog, clock = self._components.catalog, self._components.clock
            for taken in range(STEPS_AT_ONCE):
                situation = steps.look(catalog, claim)
                if situation.next_step is None or (taken and situation.rests()):
                    break
                self._take(situation, epoch=epoch)
                hit("follow.step_taken")
            return steps.finish_step(catalog, claim, now=clock())

    def _take(self, situation: Situation, *, epoch: int) -> None:
        catalog, info, now = self._components.catalog, situation.info, self._components.clock()
        match situation.next_step:
            case "stop":
                steps.stop(catalog, situation, now=now)
            case "begin_round":
                steps.begin_round(catalog, info)
            case "plan":
                self._plan(info)
            case "publish":
                self._publish(info, self._chosen(situation), epoch=epoch)
            case "end_round":
                steps.end_round(catalog, info)
            case "check":
                steps.open_check(catalog, info, now=now)
                self._components.notices.work_ready()
            case "switch":
                self._switch(info, epoch=epoch)
            case None:
                pass

    def _plan(self, info: ReembeddingInfo) -> None:
        components = self._components
        names = steps.compared_manifests(components.catalog, info)
        comparison = self._comparison(info, names)
        chosen = plan_next(
            comparison,
            info,
            manifest=names[-1],
            part_chunks=part_chunks_of(info.target.model),
            parts=steps.AHEAD,
        )
        hit("follow.planned")
        if steps.record_plan(components.catalog, info, chosen, now=components.clock()):
            components.notices.work_ready()
        if chosen.whole:
            self._compared = None  # else its segments stay mapped until somebody else is looked after

    def _comparison(self, info: ReembeddingInfo, names: tuple[str, ...]) -> Comparison:
        key = (info.id, *names)
        if self._compared is None or self._compared[0] != key:
            several: list[Manifest | None] = [read_manifest(self._components.objects, name) for name in names]
            before, after = several if len(several) == 2 else (None, several[0])
            self._compared = (key, Comparison(self._components.objects, before, after))
        return self._compared[1]

    def _chosen(self, situation: Situation) -> list[EndedGroup]:
        """Return as much of what has ended as one publish takes, at least one group."""
        most = self._components.settings.workers.max_chunks_per_publish
        chosen: list[EndedGroup] = []
        for group in situation.slices.ended:
            if chosen and sum(one.chunks for one in chosen) + group.chunks > most:
                break
            chosen.append(group)
        return chosen

    def _publish(self, info: ReembeddingInfo, groups: list[EndedGroup], *, epoch: int) -> None:
        components, target = self._components, info.target
        parts = [part for group in groups for part in group.parts]
        rows, vectors = staging.read_all(components.objects, parts)
        taken = ledger.being_merged(components.catalog, target.id) if rows else frozenset[str]()

        def finish(connection: Connection, published: PublishedManifest) -> None:
            if rows:
                served = {entry.id for entry in published.manifest.segments}
                ledger.check_not_merged(connection, target.id, taken=taken, served=served)
            steps.finish_publish(connection, info, groups)

        published = self._publisher.publish(
            target.id,
            epoch=epoch,
            shard=target.shard,
            additions=rows,
            vectors=vectors,
            removed_document_ids=[document for group in groups for document in group.documents],
            taken=taken,
            in_transaction=finish,
        )
        log.info("Published %d copied chunks.", len(rows), extra=ids_of(published.manifest))
        if published.changed:
            announce(components, published.manifest)
        with suppress(StorageError, OSError):  # garbage collection comes by later
            for name in (name for names in parts for name in names):
                components.objects.delete(name)
        plan(components, published.manifest)

    def _switch(self, info: ReembeddingInfo, *, epoch: int) -> None:
        components, moved = self._components, 0

        def finish(connection: Connection, published: PublishedManifest) -> None:
            nonlocal moved
            version, now = published.manifest.version, components.clock()
            moved = finish_takeover(connection, info, version=version, now=now)

        try:
            published = self._publisher.publish(
                info.target.id,
                epoch=epoch,
                shard=info.target.shard,
                taking_over=TakingOver(info.source.id, info.source.version),
                in_transaction=finish,
            )
        except Conflict as error:  # Fenced too: whoever has the lease goes on
            log.info("The generations do not change places yet: %s", error, extra={"generation": info.target.id})
            raise
        announce(components, published.manifest)
        components.notices.work_ready()
        log.info(
            "Another generation serves the collection now: %d documents on their way begin again.",
            moved,
            extra=ids_of(published.manifest),
        )
