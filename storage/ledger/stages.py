"""How the stages chunk and embed end: their documents move on, or fail, in the transaction that ends the batch.

Called twice, the second call gets Conflict and changes nothing.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.completion import UNFINISHED, close_empty_batches, finish_jobs
from ..catalog.engine import Catalog
from ..catalog.sweeps import guard_of_tenant
from ..catalog.tables import batches, versions
from ..catalog.tenants import hold_tenant
from ..catalog.values import slices, storable
from ..costs import Bill, settle_bill
from ..grace import Lookout, check_not_collected, check_there
from ..ids import BatchId, JobId, VersionId
from ..objects.store import ObjectStore
from .accounting import Embedded, share_among_jobs
from .claims import Claim, end
from .contents import NEVER, FailedDocument, Tried, hold_versions, mark_failed
from .forming import put_off
from .joins import join_groups
from .passing import is_short
from .turns import refund

# Statements that run while others wait are made once: to make one takes longer than to run it.
_PARTS = (
    sa.select(batches.c.id)
    .where(batches.c.group_id == sa.bindparam("group"), batches.c.stage == "embed")
    .order_by(batches.c.id)
    .with_for_update()
)
_MOVED = {"state": "embedding", "batch_id": sa.bindparam("group"), "chunk_count": sa.bindparam("chunks")}
_TITLE = sa.func.coalesce(versions.c.title, sa.bindparam("found_title", type_=sa.Text))
_MOVE_ALIKE = sa.update(versions).where(versions.c.id.in_(sa.bindparam("ids", expanding=True))).values(_MOVED)
_MOVE = sa.update(versions).where(versions.c.id == sa.bindparam("version")).values(_MOVED).values(title=_TITLE)
ALIKE = 8  # so many documents are moved sooner by a statement of their own


@dataclass(frozen=True)
class EmbedPart:
    """One staging object of chunks, to become an embed batch. Parts of one group are indexed together.

    A document's chunks may lie in several parts of one group, never in two groups. ``chunk_counts``: its chunks in this
    part; ``titles``: the title found in it, if any. Both by version. ``chunk_count`` is the sum over the documents.
    """

    batch_id: BatchId
    group_id: BatchId
    part: int
    input: str
    document_version_ids: Sequence[VersionId]
    chunk_counts: Mapping[VersionId, int]
    chunk_count: int
    size_bytes: int
    titles: Mapping[VersionId, str | None]

    @property
    def is_short(self) -> bool:
        documents = len(self.document_version_ids)
        return is_short(documents=documents, chunks=self.chunk_count, size_bytes=self.size_bytes)


def finish_chunking(
    catalog: Catalog,
    objects: ObjectStore,
    claim: Claim,
    *,
    parts: Sequence[EmbedPart],
    failed: Sequence[FailedDocument],
    now: float,
    left: Collection[VersionId] = (),
) -> None:
    """End a chunk batch: its parts become embed batches, their documents move on, the failed ones fail.

    Documents that are ``left`` wait for another turn, in a batch of their own that nobody has tried.
    Documents cancelled or superseded meanwhile are left as they are; a part with no other documents is dropped.

    Raises:
        Conflict: the claim was lost, or what was staged was collected; nothing was changed.
        ValueError: a document that is still wanted is neither in a part nor failed, or in two groups.
    """
    group_of = _group_of(parts)
    failures = {failure.version_id: failure for failure in failed}
    since = Lookout.begin(catalog, guard_of_tenant(claim.tenant_id))
    check_there(objects, [part.input for part in parts])
    with catalog.write("finish_chunking") as connection:
        hold_tenant(connection, claim.tenant_id)  # before all others, as everywhere; collectors wait for it
        end(connection, claim, state="done", now=now)
        live = hold_versions(connection, versions.c.batch_id == claim.batch_id, versions.c.state == "chunking")
        told = {*group_of, *failures, *left}
        forgotten = [version for version in live if version not in told]
        if forgotten:
            raise ValueError(f"batch {claim.batch_id} ended without saying what became of {len(forgotten)} documents")
        failing = [failures[version] for version in live if version in failures]
        mark_failed(connection, failing, stage="chunk", now=now, tried=claim.tried)
        moving = {version: group_of[version] for version in live if version in group_of and version not in failures}
        unpaid = put_off(connection, claim, [version for version in live if version in set(left)], now=now)
        wanted = [part for part in parts if _is_wanted(part, moving)]
        check_not_collected(connection, objects, [part.input for part in wanted], since=since)
        _insert_parts(connection, claim, wanted, moving, now=now)
        _move_to_embedding(connection, parts, moving)
        if failing:
            finish_jobs(connection, now=now, job_ids={job for version, job in live.items() if version in failures})
    if unpaid:
        refund(catalog, "chunk", claim.tenant_id, unpaid)


def finish_embedding(
    catalog: Catalog,
    claim: Claim,
    *,
    output: str,
    cache_hits: int,
    now: float,
    bill: Bill | None = None,
    reused: Mapping[JobId, int] | None = None,
) -> bool:
    """End an embed batch with its staging object of vectors. Returns whether it was the last of its group.

    The group's documents are then in the state indexing and its index batch is ready. ``cache_hits`` of its chunks were
    not embedded anew, which its jobs share in proportion to their chunks. ``bill``: of this attempt; it is settled with
    it, and stays open where this raises. ``reused``: by job, the chunks whose vectors the index had already.

    Raises:
        Conflict: the claim was lost; nothing was changed.
    """
    with catalog.write("finish_embedding") as connection:
        embedded = Embedded(chunks=claim.chunk_count, cache_hits=cache_hits)
        share_among_jobs(connection, claim, embedded, reused=reused or {}, now=now)
        if bill is not None:
            settle_bill(connection, bill)
        # Two last parts that end at once must see each other, or neither would find the group complete.
        connection.execute(_PARTS, {"group": claim.group_id}).all()
        end(connection, claim, state="done", now=now, output=output, error=None)
        complete = bool(join_groups(connection, [claim.group_id], now=now))
    if bill is not None:
        bill.close(settled=True)
    return complete


def fail_versions(
    catalog: Catalog, *, failures: Sequence[FailedDocument], stage: str, now: float, tried: Tried = NEVER
) -> None:
    """Fail these documents in the middle of a stage; those that are over already stay as they are.

    ``tried``: that of the claim under which they were found to be bad. A batch with no other document left ends here,
    and its holder gets Conflict.
    """
    ids = [failure.version_id for failure in failures]
    with catalog.write("fail_versions") as connection:
        groups: set[str] = set()
        for some in slices(ids):
            in_batch = sa.select(versions.c.batch_id).where(versions.c.id.in_(some), versions.c.batch_id.is_not(None))
            groups.update(connection.scalars(in_batch.distinct()))
        live: dict[VersionId, Any] = {}
        for some in slices(ids):
            live |= hold_versions(connection, versions.c.id.in_(some), versions.c.state.in_(UNFINISHED))
        mark_failed(connection, [one for one in failures if one.version_id in live], stage=stage, now=now, tried=tried)
        close_empty_batches(connection, groups, now=now)
        finish_jobs(connection, now=now, job_ids=set(live.values()))


def _group_of(parts: Sequence[EmbedPart]) -> dict[VersionId, BatchId]:
    found: dict[VersionId, BatchId] = {}
    for part in parts:
        for version in part.document_version_ids:
            if found.setdefault(version, part.group_id) != part.group_id:
                raise ValueError(f"document version {version} is in two groups: it would be indexed in halves")
    return found


def _is_wanted(part: EmbedPart, moving: Mapping[VersionId, BatchId]) -> bool:
    return any(version in moving for version in part.document_version_ids)


def _insert_parts(
    connection: Connection, claim: Claim, parts: Sequence[EmbedPart], moving: Mapping[VersionId, BatchId], *, now: float
) -> None:
    rows = []
    for part in parts:
        wanted = [version for version in part.document_version_ids if version in moving]
        row = {
            "id": part.batch_id,
            "tenant_id": claim.tenant_id,
            "generation_id": claim.generation.id,
            "shard": claim.shard,
            "stage": "embed",
            "state": "ready",
            "group_id": part.group_id,
            "part": part.part,
            "priority": claim.priority,
            "express": claim.express and part.is_short,
            "document_count": len(wanted),
            "chunk_count": part.chunk_count,
            "size_bytes": part.size_bytes,
            "input": part.input,
            "details": {"versions": wanted, **_past_of(claim)},
            "first_attempt_at": claim.tried.first_attempt_at,
            "created_at": now,
        }
        rows.append(row)
    if rows:
        connection.execute(sa.insert(batches), rows)


def _past_of(claim: Claim) -> dict[str, Any]:
    """Return what a batch tells those that are made of it: that it was alone in a quarantine, and what led there."""
    return {name: claim.details[name] for name in ("quarantined", "attempts") if name in claim.details}


def _move_to_embedding(connection: Connection, parts: Sequence[EmbedPart], moving: Mapping[VersionId, BatchId]) -> None:
    """Move the documents on; together those of which the same is told: most have a few chunks and no title."""
    chunk_counts: dict[VersionId, int] = defaultdict(int)
    titles: dict[VersionId, str] = {}
    for part in parts:
        for version, count in part.chunk_counts.items():
            chunk_counts[version] += count
        titles |= {version: storable(title) for version, title in part.titles.items() if title}
    told: dict[tuple[BatchId, int, str | None], list[VersionId]] = defaultdict(list)
    for version, group in moving.items():
        told[group, chunk_counts[version], titles.get(version)].append(version)
    rows: list[dict[str, Any]] = []
    for (group, chunks, title), ids in told.items():
        moved = {"group": group, "chunks": chunks}
        if title is None and len(ids) >= ALIKE:
            for some in slices(ids):
                connection.execute(_MOVE_ALIKE, {**moved, "ids": some})
        else:
            rows += [{**moved, "version": version, "found_title": title} for version in ids]
    if rows:
        connection.execute(_MOVE, rows)
