"""What is known of a re-embedding: its row, its two generations, and what is on its way. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.completion import OPEN_BATCH
from ..catalog.engine import Catalog
from ..catalog.generations import GenerationInfo, read_generations
from ..catalog.progress import HeldUp
from ..catalog.tables import REEMBEDDING_ENDS, batches, collections, reembeddings
from ..errors import NotFound
from ..ids import CollectionId, GenerationId, ManifestVersion, TenantId

AFTER_SWITCH = ("switched", "returned")


@dataclass(frozen=True)
class ReembeddingInfo:
    """A re-embedding. ``source`` is the generation that serves, ``target`` the other one, which follows it.

    After the switch they have changed places. ``error``: why it stands still, though nobody paused it. ``held_up``: why
    what is being embedded waits, by no fault of its own. ``chunks_total``: of what was there when it began; what came
    since is copied, too. ``cost_usd`` is None where the price is not known; ``budget_usd`` where it may cost whatever
    it does.
    """

    id: str
    tenant_id: TenantId
    collection_id: CollectionId
    source: GenerationInfo
    target: GenerationInfo
    state: str
    base_version: ManifestVersion
    source_version: ManifestVersion | None
    cursor: str | None
    planned: bool
    switches: bool
    forced: bool
    economy: bool
    keep_s: float
    chunks_total: int
    chunks_copied: int
    documents_copied: int
    cache_hits: int
    chunks_reused: int
    embedded_tokens: int
    cost_usd: float | None
    budget_usd: float | None
    report: Mapping[str, Any] | None
    error: str | None
    paused_at: float | None
    hold_until: float | None
    created_at: float
    switched_at: float | None
    finished_at: float | None
    held_up: HeldUp | None = None

    @property
    def is_open(self) -> bool:
        return self.state not in REEMBEDDING_ENDS

    @property
    def is_ordered(self) -> bool:
        """Whether what is copied is ordered for half the price. What came since the first copy is embedded at once:
        else the generations would never meet.
        """
        return self.economy and not self.base_version

    @property
    def recuts(self) -> bool:
        """Whether the two generations cut documents differently, so that chunks cannot be copied as they are."""
        return dict(self.source.chunking) != dict(self.target.chunking)

    @property
    def caught_up(self) -> bool:
        """Whether the target holds what the source did a moment ago."""
        return self.source_version is None and self.base_version == self.source.version

    @property
    def kept_until(self) -> float | None:
        """Until when the generation that does not serve is kept; None: not known yet, or over."""
        return None if self.switched_at is None or not self.is_open else self.switched_at + self.keep_s


def find_reembedding(catalog: Catalog, collection_id: CollectionId) -> ReembeddingInfo | None:
    """Return the re-embedding of a collection that is open, or else the last one; None: there was none."""
    mine = sa.select(reembeddings).where(reembeddings.c.collection_id == collection_id)
    is_over = sa.case((reembeddings.c.state.in_(REEMBEDDING_ENDS), 1), else_=0)
    newest = (reembeddings.c.created_at.desc(), reembeddings.c.id.desc())
    with catalog.read() as connection:
        row = connection.execute(mine.order_by(is_over, *newest).limit(1)).first()
        return None if row is None else _described(connection, [row])[0]


def list_reembeddings(catalog: Catalog, *, limit: int) -> list[tuple[str, ReembeddingInfo]]:
    """Return the re-embeddings of all tenants of which something is to come, with the names of their collections.

    Not those that rest after their switch, as long as nothing keeps the two generations from being the same.
    """
    named = sa.select(reembeddings, collections.c.name).join(collections)
    rests = sa.case((reembeddings.c.state.in_(AFTER_SWITCH), 1), else_=0)
    mine = named.where(reembeddings.c.state.not_in(REEMBEDDING_ENDS))
    with catalog.read() as connection:
        rows = connection.execute(mine.order_by(rests, reembeddings.c.id.desc()).limit(limit)).all()
        infos = _described(connection, rows)
    return [
        (row.name, info)
        for row, info in zip(rows, infos, strict=True)
        if info.state not in AFTER_SWITCH or info.paused_at is not None or info.held_up is not None
    ]


def read_reembedding(connection: Connection, reembedding_id: str) -> ReembeddingInfo | None:
    """Return a re-embedding as it is now, in a transaction of the caller."""
    row = connection.execute(sa.select(reembeddings).where(reembeddings.c.id == reembedding_id)).first()
    return None if row is None else _described(connection, [row])[0]


def hold_reembedding(connection: Connection, reembedding_id: str) -> ReembeddingInfo:
    """Return a re-embedding, which nobody else changes until the commit. Raises NotFound."""
    held = sa.select(reembeddings).where(reembeddings.c.id == reembedding_id).with_for_update()
    row = connection.execute(held).first()
    if row is None:
        raise NotFound("the re-embedding was deleted with its collection")
    return _described(connection, [row])[0]


def _described(connection: Connection, rows: Sequence[Row[Any]]) -> list[ReembeddingInfo]:
    found = read_generations(connection, sorted({one for row in rows for one in (row.source_id, row.target_id)}))
    held_up = _held_up(connection, rows)
    told = [name for name in ReembeddingInfo.__dataclass_fields__ if name not in ("source", "target", "held_up")]
    infos = []
    for row in rows:
        own = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for the row as a mapping
        values: dict[str, Any] = {name: own[name] for name in told}
        source, target = found[GenerationId(row.source_id)], found[GenerationId(row.target_id)]
        infos.append(ReembeddingInfo(source=source, target=target, held_up=held_up.get(row.id), **values))
    return infos


def _held_up(connection: Connection, rows: Sequence[Row[Any]]) -> dict[str, HeldUp]:
    """Return why batches of these re-embeddings wait, of each what a person should know of first."""
    going_on = [row.id for row in rows if row.state not in REEMBEDDING_ENDS and row.paused_at is None]
    of = batches.c.reembedding_id
    waiting = sa.select(of, batches.c.postponed, batches.c.error, batches.c.next_attempt_at)
    waiting = waiting.where(of.in_(going_on), batches.c.state.in_(OPEN_BATCH), batches.c.postponed.is_not(None))
    last_first = (batches.c.postponed.desc(), batches.c.next_attempt_at.desc())
    found = connection.execute(waiting.order_by(*last_first)).all() if going_on else ()
    return {row.reembedding_id: HeldUp.of(row.postponed, row.error or "", row.next_attempt_at) for row in found}
