"""What the writer of a shard does next for a generation that follows another, and the end of each step in the ledger.

The writer alone takes steps, under the claim of the one batch there is for it, so no two are taken at once. Each ends
in one transaction: whoever dies before it has done nothing, and whoever comes after looks again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.batches import ready_batch
from ..catalog.engine import Catalog
from ..catalog.followers import IN_HASTE, REST_S, wake
from ..catalog.manifests import hold_manifest, read_kept
from ..catalog.tables import batches, generations, reembeddings
from ..catalog.values import storable
from ..errors import Conflict
from ..ids import GenerationId, ManifestVersion
from ..ledger.claims import Claim, claim_oldest, end
from .records import ReembeddingInfo, hold_reembedding, read_reembedding
from .slices import (
    EndedGroup,
    OnTheirWay,
    Slice,
    forget_groups,
    insert_slices,
    postpone_slices,
    read_slices,
)

AHEAD = 16  # parts that are on their way at most when more are made
AHEAD_OF_ORDERS = 400  # likewise, where they are ordered: an order holds the chunks of about 200, and may take a day
PUBLISHED_CHUNKS = 4_096  # that have ended: then they are published though others are on their way
PUBLISHED_GROUPS = 12
HOLD_S = 10.0  # so long nothing is published in the source while the last of it is copied
HOLD_AGAIN_S = 60.0  # after the end of one that was in vain
HELD_CHUNKS = 4_096  # what is more is copied first, with nobody held up

Step = Literal["stop", "publish", "plan", "end_round", "begin_round", "check", "switch"]


@dataclass(frozen=True)
class Situation:
    """A re-embedding and its slices at one moment."""

    info: ReembeddingInfo
    slices: OnTheirWay

    @property
    def next_step(self) -> Step | None:
        """Return what is to be done now; None: nothing, until something comes."""
        info, slices = self.info, self.slices
        if not info.is_open or info.paused_at is not None:
            return None
        if slices.dead:
            return "stop"
        if info.source_version is not None:
            return self._within_round()
        if info.source.version != info.base_version:
            return "begin_round"
        if info.state == "copying":
            return "check"
        return "switch" if info.state in ("switching", "returning") else None

    def _within_round(self) -> Step | None:
        slices = self.slices
        many = slices.ended_chunks >= PUBLISHED_CHUNKS or len(slices.ended) >= PUBLISHED_GROUPS
        if slices.ended and (many or (self.info.planned and not slices.open)):
            return "publish"
        if not self.info.planned and slices.open < (AHEAD_OF_ORDERS if self.info.is_ordered else AHEAD) // 2:
            return "plan"
        return "end_round" if self.info.planned and not slices.open and not slices.ended else None

    def rests(self) -> bool:
        """Say whether the next step may wait a while: nobody waits for the target to be as new as the source."""
        return self.next_step == "begin_round" and self.info.state not in IN_HASTE


def claim_follow(
    catalog: Catalog, *, shard: int, owner: str, lease_s: float, now: float, max_attempts: int
) -> Claim | None:
    """Take the shard's oldest re-embedding that is to be looked after, or None. For the holder of the shard's lease."""
    return claim_oldest(
        catalog, stage="follow", shard=shard, owner=owner, lease_s=lease_s, now=now, max_attempts=max_attempts
    )


def look(catalog: Catalog, claim: Claim) -> Situation:
    """Return how things stand. Raises Conflict: the re-embedding is no more."""
    with catalog.read() as connection:
        return situation_of(connection, str(claim.reembedding_id))


def situation_of(connection: Connection, reembedding_id: str) -> Situation:
    """Return how things stand, in a transaction of the caller. Raises Conflict as `look`."""
    info = read_reembedding(connection, reembedding_id)
    if info is None:
        raise Conflict("the re-embedding was deleted with its collection")
    return Situation(info, read_slices(connection, reembedding_id))


def begin_round(catalog: Catalog, info: ReembeddingInfo) -> None:
    """Begin to copy what differs in the version of the source that is current. That stays until it is copied."""
    with catalog.write("begin_round") as connection:
        now = hold_reembedding(connection, info.id)
        if now.source_version is not None or now.source.version == now.base_version:
            return
        hold_manifest(connection, now.source.id, now.source.version)
        begun: dict[str, Any] = {"source_version": now.source.version, "cursor": None, "planned": False}
        if not now.base_version:
            begun["chunks_total"] = now.source.live_chunks
        _update(connection, info.id, **begun)


def compared_manifests(catalog: Catalog, info: ReembeddingInfo) -> tuple[str, ...]:
    """Return the objects of the version that the target holds, if any, and of the one to copy. Raises NotKept."""
    wanted = [one for one in (info.base_version, info.source_version) if one]
    with catalog.read() as connection:
        return tuple(read_kept(connection, info.source.id, version).name for version in wanted)


@dataclass(frozen=True)
class Plan:
    """The groups of slices that follow, the last document that they are about, and whether they are all."""

    groups: Sequence[Sequence[Slice]]
    cursor: str | None
    whole: bool
    stage: Literal["chunk", "embed"]


def record_plan(catalog: Catalog, info: ReembeddingInfo, plan: Plan, *, now: float) -> bool:
    """Make the batches of a plan. Returns whether there is something to embed now.

    Where the rest is little and the switch waits for it, nothing is published in the source until that is copied, for
    a while.
    """
    with catalog.write("plan_slices") as connection:
        standing = hold_reembedding(connection, info.id)
        if (standing.source_version, standing.cursor, standing.planned) != (info.source_version, info.cursor, False):
            raise Conflict("the re-embedding was changed while its next documents were chosen: look again")
        if standing.paused_at is not None or not standing.is_open:
            return False
        chunks = insert_slices(connection, standing, plan.groups, stage=plan.stage, now=now)
        planned: dict[str, Any] = {"cursor": plan.cursor, "planned": plan.whole}
        if plan.whole and info.cursor is None and chunks <= HELD_CHUNKS and _may_hold(standing, now=now):
            planned["hold_until"] = now + HOLD_S
        _update(connection, info.id, **planned)
        return bool(chunks)


def _may_hold(info: ReembeddingInfo, *, now: float) -> bool:
    waits = info.state in ("switching", "returning")
    return waits and (info.hold_until is None or info.hold_until + HOLD_AGAIN_S < now)


def finish_publish(connection: Connection, info: ReembeddingInfo, groups: Sequence[EndedGroup]) -> None:
    """Forget groups that are being published in the target; call it inside the publish transaction.

    Raises:
        Conflict: the re-embedding was ended meanwhile.
    """
    standing = hold_reembedding(connection, info.id)
    if not standing.is_open or standing.target.id != info.target.id:
        raise Conflict("the re-embedding was ended while its chunks were being published")
    forget_groups(connection, info.id, [group.group_id for group in groups])
    counts = reembeddings.c
    _update(
        connection,
        info.id,
        chunks_copied=counts.chunks_copied + sum(group.chunks for group in groups),
        documents_copied=counts.documents_copied + sum(len(group.documents) for group in groups),
    )


def end_round(catalog: Catalog, info: ReembeddingInfo) -> None:
    """Take note that the target holds what the version of the source does that was copied."""
    with catalog.write("end_round") as connection:
        standing = hold_reembedding(connection, info.id)
        if standing.is_open and standing.source_version == info.source_version and standing.planned:
            ended = {"base_version": info.source_version, "source_version": None, "cursor": None, "planned": False}
            _update(connection, info.id, **ended)


def open_check(catalog: Catalog, info: ReembeddingInfo, *, now: float) -> None:
    """Let the two generations be compared, before one takes over from the other."""
    with catalog.write("open_check") as connection:
        standing = hold_reembedding(connection, info.id)
        if standing.state == "copying" and standing.paused_at is None:
            insert_check(connection, standing, now=now)


def insert_check(connection: Connection, info: ReembeddingInfo, *, now: float) -> None:
    """Make the batch of a check, and take note that it waits. The caller holds the re-embedding."""
    row = ready_batch(
        "check",
        tenant=info.tenant_id,
        generation_id=info.target.id,
        shard=info.target.shard,
        now=now,
        reembedding_id=info.id,
    )
    connection.execute(sa.insert(batches).values(row))
    _update(connection, info.id, state="checking", report=None)


def finish_check(catalog: Catalog, claim: Claim, *, passed: bool, report: dict[str, Any], now: float) -> str:
    """End a check with its report. Returns the state that follows: switching, ready or refused.

    Raises:
        Conflict: the claim was lost, or the re-embedding is not being checked any more.
    """
    with catalog.write("finish_check") as connection:
        info = hold_reembedding(connection, str(claim.reembedding_id))
        end(connection, claim, state="done", now=now, error=None)
        if info.state != "checking":
            raise Conflict("the re-embedding was ended while it was being checked")
        state = "refused"
        if passed or info.forced:
            state = "switching" if info.switches else "ready"
        _update(connection, info.id, state=state, report=report)
        wake(connection, info.id, at=now)
    return state


def stop(catalog: Catalog, situation: Situation, *, now: float) -> None:
    """Pause a re-embedding of which something was given up, with the reason."""
    dead = situation.slices.dead[0]
    error = f"{_what_failed(dead)} failed: {dead.error}"
    with catalog.write("stop_reembedding") as connection:
        standing = hold_reembedding(connection, situation.info.id)
        if standing.is_open and standing.paused_at is None:
            postpone_slices(connection, standing.id)
            _update(connection, standing.id, paused_at=now, error=storable(error), hold_until=None)


def _what_failed(dead: Row[Any]) -> str:
    if dead.stage == "check":
        return "comparing the two generations"
    documents = Slice.of(dead.details).documents if dead.details else ()
    of = f"{documents[0]} and {len(documents) - 1} other documents" if len(documents) > 1 else "".join(documents[:1])
    return f"copying {of or 'some documents'}"


def finish_step(catalog: Catalog, claim: Claim, *, now: float) -> bool:
    """End the batch; it waits on where something is to be done already. Returns whether that is now.

    Raises Conflict when the claim was lost.
    """
    with catalog.write("finish_step") as connection:
        # Whoever ends a slice waits here for the row, and then wakes the batch; what ended before is seen.
        end(connection, claim, state="done", now=now, error=None)
        situation = situation_of(connection, str(claim.reembedding_id))
        if situation.next_step is None:
            return False
        rests = situation.rests()
        wake(connection, situation.info.id, at=now + REST_S if rests else now)
        return not rests


def _update(connection: Connection, reembedding_id: str, **values: Any) -> None:
    connection.execute(sa.update(reembeddings).where(reembeddings.c.id == reembedding_id).values(values))


def covered_version(connection: Connection, generation_id: GenerationId) -> ManifestVersion:
    """Return the current version of a generation, which nobody moves until the commit."""
    wanted = sa.select(generations.c.version).where(generations.c.id == generation_id).with_for_update(key_share=True)
    return ManifestVersion(connection.scalars(wanted).one())
