"""What the writer of a shard indexes or removes next, and the end of it inside the publish transaction.

A newer version always wins: an older one never replaces it, whatever order they arrive in. A delete is a version that
holds nothing, an update one that holds what is indexed under other metadata.
"""

import sys
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.completion import OPEN_BATCH, UNFINISHED, close_empty_batches, finish_jobs
from ..catalog.engine import Catalog
from ..catalog.followers import not_held
from ..catalog.generations import GenerationInfo, read_generations
from ..catalog.tables import batches, generations, versions
from ..catalog.values import slices
from ..errors import Conflict
from ..ids import BatchId, GenerationId, ManifestVersion, VersionId
from .claims import Held, lost, one_more_attempt
from .contents import STATES_IN, VersionRow, read_versions
from .outcomes import CONTENT, Key, key_of, mark_published
from .pauses import goes_on
from .turns import COLUMNS, BatchesInTurn, Turns, batch_cost

SUSPECT_ATTEMPTS = 2  # groups that failed so often are claimed alone, so that they can hurt no others
_LOOK_AHEAD = 1_000
_CHUNKS_PER_REMOVAL = 4  # a removed or updated document takes a publish as long as so many new chunks
_STANDING = ("id", "collection_id", "document_id", "number", "state", "action", "batch_id", "job_id")
_OF_DOCUMENTS = (  # made once: the words of a statement for hundreds take longer to put together than it takes
    sa.select(*(versions.c[name] for name in _STANDING), *CONTENT)
    .where(versions.c.collection_id.in_(sa.bindparam("collections", expanding=True)))
    .where(versions.c.document_id.in_(sa.bindparam("documents", expanding=True)))
    .where(versions.c.state.in_((*UNFINISHED, "indexed")))
    .order_by(versions.c.id)
    .with_for_update()
)


@dataclass(frozen=True)
class IndexGroup(Held):
    """Embedded chunks to be published in one piece. ``parts``: pairs of staging objects (chunks, vectors), in order.

    ``versions``: the documents whose chunks are wanted, never empty. The staging objects may hold more: leave those
    out, they were cancelled or overtaken. A group of removals and updates has no parts.
    """

    generation: GenerationInfo
    parts: tuple[tuple[str, str], ...]
    versions: tuple[VersionRow, ...]


def claim_index(
    catalog: Catalog,
    *,
    shard: int,
    owner: str,
    lease_s: float,
    now: float,
    max_chunks: int,
    max_generations: int = sys.maxsize,
    max_attempts: int = 5,
    resting: Collection[GenerationId] = (),
) -> list[IndexGroup]:
    """Take the shard's index batches that are due, up to ``max_chunks`` of ``max_generations``, but at least one.

    Tenants take turns (``turns.py``), and high priorities of one come first: whoever deletes a million documents, a
    batch for each few hundred, lets others wait for one publish and not for all. What is paused stays, and so do the
    generations ``resting``, which were published a moment ago, and those from which another is about to take over.

    For the holder of the shard's lease only. What the same ``owner`` took before and did not finish is taken again.
    """
    open_ones = _claimable(shard=shard, owner=owner, now=now, max_attempts=max_attempts)
    open_ones = (*open_ones, goes_on(batches.c.tenant_id), batches.c.generation_id.not_in(sorted(resting)))
    open_ones = (*open_ones, not_held(now), _serves())
    suspect = min(SUSPECT_ATTEMPTS, max_attempts - 1)
    while True:
        with catalog.read() as connection:  # nobody waits for who looks
            rows = connection.execute(_first_of_each(open_ones)).all()
            turns = Turns.look(connection, "index", among={row.tenant_id for row in rows})
            most = {"max_chunks": max_chunks, "max_generations": max_generations}
            chosen = _within(rows, turns, **most, suspect_attempts=suspect)
            wanted = _read_wanted(connection, [row.group_id for row in chosen])
            # A group of nothing but older versions stays ready: it ends when the newer ones are indexed.
            working = [row for row in chosen if row.group_id in wanted]
            groups = _groups(connection, working, wanted, owner=owner, max_attempts=max_attempts)
        if not chosen:
            return []
        with catalog.write("claim_index") as connection:
            empty = {row.group_id for row in chosen if row.group_id not in wanted}
            closed = close_empty_batches(connection, empty, now=now)
            held = _mark_running(connection, working, open_ones, owner=owner, lease_s=lease_s, now=now)
            _charge(connection, [row for row in working if row.id in held])
        if held or not closed:
            return [group for group in groups if group.batch_id in held]


def finish_indexing(
    connection: Connection,
    groups: Sequence[IndexGroup],
    *,
    version: ManifestVersion,
    now: float,
    trimmed: Mapping[str, int] | None = None,
) -> None:
    """Mark the groups' documents as indexed or deleted by manifest ``version``; call it in the publish transaction.

    Older versions of these documents become superseded, in whatever state they are. ``trimmed``: how many chunks each
    trim took out of what is indexed.

    Raises:
        Conflict: a claim was lost, or a document was cancelled or overtaken since. Roll back and claim again.
    """
    _hold_batches(connection, groups)
    wanted = {row.id: row for group in groups for row in group.versions}
    older = _hold_documents(connection, wanted)
    bases = {key_of(row): row for row in older if row.state == "indexed"}
    superseded = {"state": "superseded", "finished_at": now}
    for some in slices([row.id for row in older]):
        connection.execute(sa.update(versions).where(versions.c.id.in_(some)).values(superseded))
    if groups:
        served_by = (groups[0].generation.id, version)
        rows = list(wanted.values())
        mark_published(connection, rows, bases=bases, trimmed=trimmed or {}, served_by=served_by, now=now)
    for few in slices([group.batch_id for group in groups]):
        done = {"state": "done", "owner": None, "lease_until": None, "error": None, "finished_at": now}
        connection.execute(sa.update(batches).where(batches.c.id.in_(few)).values(done))
    close_empty_batches(connection, {row.batch_id for row in older if row.batch_id}, now=now)
    affected = {row.job_id for row in wanted.values()} | {row.job_id for row in older}
    finish_jobs(connection, now=now, job_ids=affected)


def _claimable(*, shard: int, owner: str, now: float, max_attempts: int) -> tuple[sa.ColumnElement[bool], ...]:
    due = sa.and_(batches.c.state.in_(("ready", "sent")), batches.c.next_attempt_at <= now)
    left = sa.or_(batches.c.lease_until < now, batches.c.owner == owner)
    lapsed = sa.and_(batches.c.state == "running", left, batches.c.attempts < max_attempts)
    # The states in one list as well, or the server looks at every index batch there ever was.
    still_open = (batches.c.stage == "index", batches.c.state.in_(OPEN_BATCH), batches.c.shard == shard)
    return (*still_open, sa.or_(due, lapsed))


def _serves() -> sa.ColumnElement[bool]:
    """Return the condition for batches of active generations: what another one took over is sent to that."""
    return sa.exists().where(generations.c.id == batches.c.generation_id, generations.c.state == "active")


def _first_of_each(open_ones: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    """Return the oldest batches of each tenant and priority."""
    age = (batches.c.created_at, batches.c.id)
    lane = (batches.c.tenant_id, batches.c.priority)
    turn = sa.func.row_number().over(partition_by=lane, order_by=age).label("turn")
    ranked = sa.select(batches.c.id, turn).where(*open_ones).subquery()
    columns = (*COLUMNS, batches.c.group_id, batches.c.generation_id, batches.c.attempts)
    wanted = sa.select(*columns).join(ranked, ranked.c.id == batches.c.id)
    return wanted.order_by(ranked.c.turn, *age).limit(_LOOK_AHEAD)


def _within(
    rows: Sequence[Row[Any]], turns: Turns, *, max_chunks: int, max_generations: int, suspect_attempts: int
) -> list[Row[Any]]:
    """Choose in turn what fits. What does not waits until it is the first, and its tenant has not had its turn.

    What failed ``suspect_attempts`` times is taken alone: at its last attempt each group stands for itself.
    """
    taken: list[Row[Any]] = []
    of: set[str] = set()
    chunks = 0
    waiting = BatchesInTurn(rows)
    while waiting.tenants:
        row = waiting.next_of(turns)
        suspect = row.attempts >= suspect_attempts
        more = max(row.document_count, row.chunk_count or _CHUNKS_PER_REMOVAL * row.document_count)
        if taken and (suspect or chunks + more > max_chunks or len(of | {row.generation_id}) > max_generations):
            continue
        taken.append(row)
        of.add(row.generation_id)
        turns.charge(row.tenant_id, row.priority, batch_cost(row))
        chunks += more
        if suspect or chunks >= max_chunks:
            break
    return taken


def _mark_running(
    connection: Connection,
    chosen: Sequence[Row[Any]],
    open_ones: Sequence[sa.ColumnElement[bool]],
    *,
    owner: str,
    lease_s: float,
    now: float,
) -> set[str]:
    """Take those of the chosen batches that are still open, and have been tried no more often since; return which."""
    attempts = {row.id: row.attempts for row in chosen}
    held: list[str] = []
    for some in slices(sorted(attempts)):
        found = sa.select(batches.c.id, batches.c.attempts).where(batches.c.id.in_(some), *open_ones)
        rows = connection.execute(found.order_by(batches.c.id).with_for_update(of=batches, skip_locked=True))
        held += [row.id for row in rows if row.attempts == attempts[row.id]]
    values = {"state": "running", "owner": owner, "lease_until": now + lease_s, **one_more_attempt(now)}
    for some in slices(held):
        connection.execute(sa.update(batches).where(batches.c.id.in_(some)).values(values))
    return set(held)


def _charge(connection: Connection, taken: Sequence[Row[Any]]) -> None:
    """Let the tenants pay, by accounts as they are now: another shard's writer may have changed them since the look."""
    turns = Turns.read(connection, "index", among={row.tenant_id for row in taken})
    for row in taken:
        turns.charge(row.tenant_id, row.priority, batch_cost(row))
    turns.write(connection)


def _groups(
    connection: Connection,
    rows: Sequence[Row[Any]],
    wanted: Mapping[str, Sequence[VersionRow]],
    *,
    owner: str,
    max_attempts: int,
) -> list[IndexGroup]:
    generations = read_generations(connection, sorted({row.generation_id for row in rows}))
    parts = _read_parts(connection, [row.group_id for row in rows])
    return [
        IndexGroup(
            batch_id=BatchId(row.id),
            owner=owner,
            attempt=row.attempts + 1,
            max_attempts=max_attempts,
            generation=generations[GenerationId(row.generation_id)],
            parts=tuple(parts[row.group_id]),
            versions=tuple(wanted[row.group_id]),
        )
        for row in rows
    ]


def _read_parts(connection: Connection, group_ids: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    whole = sa.select(batches.c.group_id, batches.c.input, batches.c.output)
    whole = whole.where(batches.c.stage == "embed", batches.c.state == "done", batches.c.output.is_not(None))
    for some in slices(group_ids):
        ordered = whole.where(batches.c.group_id.in_(some)).order_by(batches.c.group_id, batches.c.part)
        for group_id, chunks, vectors in connection.execute(ordered):
            found[group_id].append((chunks, vectors))
    return found


def _read_wanted(connection: Connection, group_ids: Sequence[str]) -> dict[str, list[VersionRow]]:
    """Return what to publish, of each document the newest version, by group; groups without any are left out."""
    newest: dict[Key, VersionRow] = {}
    trims: list[VersionRow] = []
    for some in slices(group_ids):
        for row in read_versions(connection, versions.c.batch_id.in_(some), versions.c.state.in_(STATES_IN["index"])):
            if row.action == "trim":
                trims.append(row)
            elif key_of(row) not in newest or newest[key_of(row)].number < row.number:
                newest[key_of(row)] = row
    found: dict[str, list[VersionRow]] = defaultdict(list)
    for row in sorted([*newest.values(), *trims], key=lambda one: one.id):
        found[row.batch_id].append(row)
    return dict(found)


def _hold_batches(connection: Connection, groups: Sequence[IndexGroup]) -> None:
    """Check that every claim is in force, and its generation the one that it was for."""
    claims = {group.batch_id: group for group in groups}
    held: set[str] = set()
    for some in slices(sorted(claims)):
        running = sa.select(batches.c.id, batches.c.owner, batches.c.attempts, batches.c.generation_id)
        running = running.where(batches.c.id.in_(some), batches.c.state == "running").order_by(batches.c.id)
        for row in connection.execute(running.with_for_update()):
            mine = claims[row.id]
            if (row.owner, row.attempts, row.generation_id) == (mine.owner, mine.attempt, mine.generation.id):
                held.add(row.id)
    for batch_id, group in claims.items():
        if batch_id not in held:
            raise lost(group)


def _hold_documents(connection: Connection, wanted: dict[VersionId, VersionRow]) -> list[Row[Any]]:
    """Check that every wanted version may be indexed now, and return the older ones that it replaces."""
    numbers = {key_of(row): row.number for row in wanted.values() if row.action != "trim"}
    collections = sorted({row.collection_id for row in wanted.values()})
    older: list[Row[Any]] = []
    ready: set[str] = set()
    for some in slices(sorted({row.document_id for row in wanted.values()})):
        for row in connection.execute(_OF_DOCUMENTS, {"collections": collections, "documents": some}):
            number = numbers.get(key_of(row), 0)
            if row.id in wanted:
                ready |= {row.id} if row.state in STATES_IN["index"] else set()
            elif row.action != "trim" and row.number < number:
                older.append(row)
    if missing := wanted.keys() - ready:
        raise Conflict(f"{len(missing)} documents were cancelled or replaced meanwhile, {min(missing)} among them")
    return older
