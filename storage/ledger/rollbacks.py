"""Rollbacks as batches: asked for by anybody, published by the shard's writer, at most one open per generation.

An accepted rollback keeps its version from being forgotten until it ends. It ends in the transaction that publishes
it, in which the documents become what the old version serves. A document version that was served and is not any more
is superseded where another one of its document is, and deleted where none is; what is on its way stays on its way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.batches import ready_batch
from ..catalog.completion import OPEN_BATCH, UNFINISHED, close_empty_batches, finish_jobs
from ..catalog.engine import Catalog
from ..catalog.manifests import hold_manifest
from ..catalog.sources import lock_documents
from ..catalog.statements import insert_if_absent
from ..catalog.tables import OF_DOCUMENT, batches, documents, generations, versions
from ..catalog.values import batched, storable
from ..errors import Conflict, Damaged, NotFound
from ..ids import BatchId, GenerationId, ManifestVersion, TenantId
from ..segments.manifests import Manifest
from ..segments.version_changes import VersionChange
from .claims import Claim, claim_oldest, end
from .merges import drop_open_merges

if TYPE_CHECKING:  # a plan brings the kernels and their compiler along, which half of the roles never need
    from ..publishing.rollbacks import Rollback

RollbackState = Literal["waiting", "done", "failed"]
_STAYS_SHOWN = (*UNFINISHED, "failed")  # a newest version that tells more than what is served


@dataclass(frozen=True)
class RollbackInfo:
    """A rollback to ``version``. ``published``: the version that serves it since, None while it waits or failed."""

    id: BatchId
    generation_id: GenerationId
    version: ManifestVersion
    state: RollbackState
    error: str | None
    published: ManifestVersion | None
    created_at: float
    finished_at: float | None


def open_rollback(catalog: Catalog, *, generation_id: GenerationId, version: int, now: float) -> RollbackInfo:
    """Accept a rollback; one to the same version that is still open is that one.

    Raises:
        NotFound: there is no such generation. NotKept: the version is not there any more.
        Conflict: another rollback is open.
    """
    with catalog.write("open_rollback") as connection:
        owner = sa.select(generations.c.tenant_id, generations.c.shard).where(generations.c.id == generation_id)
        generation = connection.execute(owner.with_for_update(read=True, key_share=True)).first()
        if generation is None:
            raise NotFound(f"there is no generation {generation_id!r}")
        hold_manifest(connection, generation_id, version)
        row = ready_batch(
            "rollback",
            tenant=generation.tenant_id,
            generation_id=generation_id,
            shard=generation.shard,
            now=now,
            details={"version": version},
        )
        insert_if_absent(connection, batches, row)  # unless one is open
        is_open = (batches.c.generation_id == generation_id, batches.c.state.in_(OPEN_BATCH))
        found = connection.execute(sa.select(batches).where(batches.c.stage == "rollback", *is_open)).first()
        if found is None:
            raise Conflict("another rollback ended just now: try again")
        info = _info(found)
    if info.version != version:
        raise Conflict(f"a rollback to version {info.version} is under way: wait for its end")
    return info


def get_rollback(
    catalog: Catalog, *, tenant: TenantId, generation_id: GenerationId, rollback_id: BatchId
) -> RollbackInfo:
    """Return a rollback; after a week it is forgotten. Raises NotFound."""
    wanted = sa.select(batches).where(batches.c.id == rollback_id, batches.c.stage == "rollback")
    wanted = wanted.where(batches.c.tenant_id == tenant, batches.c.generation_id == generation_id)
    with catalog.read() as connection:
        row = connection.execute(wanted).first()
    if row is None:
        raise NotFound(f"there is no rollback {rollback_id!r}")
    return _info(row)


def claim_rollback(
    catalog: Catalog, *, shard: int, owner: str, lease_s: float, now: float, max_attempts: int
) -> Claim | None:
    """Take the shard's oldest rollback that is due, or None. For the holder of the shard's lease."""
    return claim_oldest(
        catalog, stage="rollback", shard=shard, owner=owner, lease_s=lease_s, now=now, max_attempts=max_attempts
    )


def finish_rollback(
    connection: Connection, claim: Claim, rollback: "Rollback", *, manifest: Manifest, changed: bool, now: float
) -> int:
    """Bring the documents back and end the batch; call it inside the publish transaction. Returns how many differ.

    Merges that are open are dropped: they were built from segments that may not be served any more.

    Args:
        manifest: the one that is current from this transaction on.
        changed: whether it is a new one.

    Raises:
        NotKept: the version was forgotten. Conflict: the claim was lost, or something else was published meanwhile.
        Damaged: the catalog's documents are not those that the manifests serve.
    """
    hold_manifest(connection, claim.generation.id, rollback.version)
    details = {**claim.details, "published": manifest.version}
    end(connection, claim, state="done", now=now, error=None, details=details)
    if not changed:
        return 0
    if manifest.parent != rollback.current:
        raise Conflict(f"{claim.generation.id} was published while it was compared: look again")
    drop_open_merges(connection, claim.generation.id, error="the collection was rolled back", now=now)
    lock_documents(connection, claim.generation.collection_id, ids=rollback.changes.document_ids())
    for some in batched(rollback.changes):
        _bring_back(connection, claim, some, now=now)
    return len(rollback.changes)


def fail_rollback(catalog: Catalog, claim: Claim, *, error: str, now: float) -> None:
    """End a rollback that cannot succeed. Raises Conflict when the claim was lost.

    Done, and not dead: it was decided, who asked for it is told why, and nobody has to look after it. Dead are those at
    which workers died until nobody tried any more.
    """
    with catalog.write("fail_rollback") as connection:
        end(connection, claim, state="done", now=now, error=storable(error))


def refuse_rollback(
    connection: Connection, *, generation_id: GenerationId, version: int, error: str, now: float
) -> bool:
    """End a rollback that waits for this version, whoever works on it: he can publish it no more. Was there one?

    The caller holds the row of the version, so that none is accepted before his commit.
    """
    waiting = sa.select(batches.c.id, batches.c.details).where(batches.c.generation_id == generation_id)
    waiting = waiting.where(batches.c.stage == "rollback", batches.c.state.in_(OPEN_BATCH)).with_for_update()
    ids = [row.id for row in connection.execute(waiting) if row.details["version"] == version]
    over = {"state": "done", "owner": None, "lease_until": None, "finished_at": now, "error": storable(error)}
    connection.execute(sa.update(batches).where(batches.c.id.in_(ids)).values(over))
    return bool(ids)


def _bring_back(connection: Connection, claim: Claim, changes: Sequence[VersionChange], *, now: float) -> None:
    generation = claim.generation
    ids = [one.document_id for one in changes]
    mine = (versions.c.collection_id == generation.collection_id, versions.c.document_id.in_(ids))
    told = ("id", "document_id", "number", "state", "content_hash", "chunk_count")
    held: sa.Select[Any] = sa.select(*(versions.c[name] for name in told))
    rows = connection.execute(held.where(*mine, versions.c.number.is_not(None)).with_for_update()).all()
    by_number = {(row.document_id, row.number): row for row in rows}
    indexed = {row.document_id: row for row in rows if row.state == "indexed"}
    newest = _read_newest(connection, claim, ids)
    _check(changes, indexed=indexed, known=by_number)

    ended: dict[str, list[dict[str, Any]]] = {"superseded": [], "deleted": []}
    returned: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for one in changes:
        document, after = one.document_id, one.after
        current = indexed.get(document)
        if current is not None and (after is None or after != current.number):
            ended["deleted" if after is None else "superseded"].append({"row": current.id})
        if after is not None:
            back = by_number[document, after]
            returned.append({"row": back.id, "chunks": one.chunks})
            if newest.get(document) not in _STAYS_SHOWN:
                shown.append({"document": document, "shown": back.number})
    of_row = sa.update(versions).where(versions.c.id == sa.bindparam("row"))
    _fail_updates(connection, claim, [one.document_id for one in changes if one.after is None], now=now)
    for state, gone in ended.items():  # first, for no document is ever served twice
        if gone:
            connection.execute(of_row.values(state=state, finished_at=now), gone)
    if returned:
        values = {"state": "indexed", "finished_at": now, "chunk_count": sa.bindparam("chunks")}
        connection.execute(of_row.values(values), returned)
    if shown:
        of_document = (
            documents.c.id == sa.bindparam("document"),
            documents.c.collection_id == generation.collection_id,
        )
        connection.execute(sa.update(documents).where(*of_document).values(newest=sa.bindparam("shown")), shown)


def _fail_updates(connection: Connection, claim: Claim, gone: Sequence[str], *, now: float) -> None:
    """End what was to describe documents anew that are no more; other versions of them bring their own text."""
    lost = (versions.c.collection_id == claim.generation.collection_id, versions.c.document_id.in_(gone))
    failed = sa.update(versions).where(*lost, versions.c.action == "update", versions.c.state.in_(UNFINISHED))
    told = {"stage": "index", "error_code": "rolled_back", "error": "the collection was rolled back to before it"}
    ended = failed.values(state="failed", finished_at=now, **told).returning(versions.c.job_id, versions.c.batch_id)
    rows = connection.execute(ended).all()
    if rows:
        close_empty_batches(connection, {row.batch_id for row in rows}, now=now)
        finish_jobs(connection, now=now, job_ids={row.job_id for row in rows})


def _read_newest(connection: Connection, claim: Claim, ids: Sequence[str]) -> dict[str, str]:
    """Return the state of the newest version of each document."""
    newest = sa.and_(OF_DOCUMENT, versions.c.number == documents.c.newest)
    wanted = sa.select(documents.c.id, versions.c.state).join(versions, newest)
    mine = (documents.c.collection_id == claim.generation.collection_id, documents.c.id.in_(ids))
    return {row.id: row.state for row in connection.execute(wanted.where(*mine))}


def _check(
    changes: Sequence[VersionChange], *, indexed: Mapping[str, Any], known: Mapping[tuple[str, int], Any]
) -> None:
    """Check that the catalog knows what both versions serve. Raises Damaged."""
    for one in changes:
        document = one.document_id
        current = indexed.get(document)
        served = current.number if current is not None and current.chunk_count else None  # it may have lost all chunks
        if served != one.before:
            raise Damaged(f"document {document} is not served as the catalog says: run penstock doctor")
        if one.after is not None:
            row = known.get((document, one.after))
            if row is None or not one.is_of(row.content_hash):  # its number was given anew after a rebuild
                raise Damaged(f"version {one.after} of document {document} is not in the catalog any more")
            if row.state in UNFINISHED:  # a repair let it start again: to take it off its way would leave it half done
                raise Damaged(f"document {document} is being indexed again after a repair: roll back when that is over")


def _info(row: Row[Any]) -> RollbackInfo:
    states: dict[str, RollbackState] = {"done": "done" if row.error is None else "failed", "dead": "failed"}
    return RollbackInfo(
        id=BatchId(row.id),
        generation_id=GenerationId(row.generation_id),
        version=ManifestVersion(row.details["version"]),
        state=states.get(row.state, "waiting"),
        error=row.error,
        published=row.details.get("published"),
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
