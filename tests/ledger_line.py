"""The whole line of roles, played by hand on a real catalog: a test says who works, dies, or is late."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from penstock.storage import ledger, paths
from penstock.storage.catalog.backlogs import count_left
from penstock.storage.catalog.collections import CollectionInfo, create_collection
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.tables import (
    OF_DOCUMENT,
    VERSION_FINAL_STATES,
    batches,
    documents,
    jobs,
    metadata,
    tenants,
    versions,
)
from penstock.storage.ids import BatchId, DocumentId, JobId, ManifestVersion, SegmentId, TenantId, new_id
from penstock.storage.intake.documents import Accepted, SubmittedDocument, accept
from penstock.storage.intake.removals import Removed, remove_documents
from penstock.storage.intake.trims import LocatedChunk, remove_chunks
from penstock.storage.intake.updates import DocumentChange, Updated, update_document
from penstock.storage.objects.store import ObjectStore
from penstock.storage.segments.manifests import SegmentEntry, Swap, file_entry

from .memory_objects import MemoryObjects

LEASE_S = 30.0
MAX_ATTEMPTS = 3
TENANT = TenantId("default")


def document(source: str, text: str = "", **fields: Any) -> SubmittedDocument:
    return SubmittedDocument(source, f"{source}.txt", text.encode(), **fields)


def form(catalog: Catalog, forming: ledger.Forming, *, now: float) -> int:
    """Form chunk batches without sending them, which the dispatcher does in the same transaction."""
    with catalog.write("form") as connection:
        waiting = ledger.find_waiting(connection, forming, now=now)
        formed = ledger.form_waiting(connection, waiting, forming, now=now)
        count_left(connection, formed.left)
    return formed.batches


@dataclass
class Line:
    """``now`` is the clock; it moves only when a test moves it. ``parts``: embed parts a chunk batch is cut into."""

    catalog: Catalog
    collection: CollectionInfo
    tenant: TenantId = TENANT
    objects: ObjectStore = field(default_factory=MemoryObjects)
    now: float = 1_000.0
    parts: int = 1
    owner: str = "worker"

    def accept(self, submitted: Sequence[SubmittedDocument], **options: Any) -> Accepted:
        return accept(
            self.catalog,
            self.objects,
            tenant=self.tenant,
            collection_id=self.collection.id,
            generation_id=self.collection.generation.id,
            documents=submitted,
            now=self.now,
            **options,
        )

    def submit(self, *sources: str, text: str = "text") -> Accepted:
        return self.accept([document(source, f"{text} of {source}") for source in sources])

    @property
    def _place(self) -> dict[str, Any]:
        generation = self.collection.generation
        return {"tenant": self.tenant, "collection_id": self.collection.id, "generation_id": generation.id}

    def remove(self, *sources: str, ids: Sequence[str] = (), **options: Any) -> Removed:
        named = {"sources": sources, "document_ids": ids}
        return remove_documents(self.catalog, **self._place, **named, **options, now=self.now)

    def trim(self, source: str, *ordinals: int) -> JobId:
        """Take chunks out of the version that is indexed."""
        document_id = self.document_id(source)
        served = [row[2] for row in self.version_rows("document_id", "state", "id") if row[0] == document_id]
        chunks = [LocatedChunk(document_id, served[0], ordinal) for ordinal in ordinals]
        return remove_chunks(self.catalog, **self._place, chunks=chunks, now=self.now)

    def update(self, source: str, **change: Any) -> Updated:
        document_id, asked = self.document_id(source), DocumentChange(**change)
        return update_document(self.catalog, **self._place, document_id=document_id, change=asked, now=self.now)

    def document_id(self, source: str) -> DocumentId:
        mine = (documents.c.collection_id == self.collection.id, documents.c.source == source)
        with self.catalog.read() as connection:
            return DocumentId(connection.scalars(sa.select(documents.c.id).where(*mine)).one())

    def expire(self) -> int:
        """Take out what has expired as beat and the writer do; returns how many documents that were."""
        ledger.open_expiries(self.catalog, now=self.now, every_s=0.0)
        options = {"owner": self.owner, "lease_s": LEASE_S, "now": self.now, "max_attempts": MAX_ATTEMPTS}
        claim = ledger.claim_expiry(self.catalog, shard=0, **options)
        if claim is None:
            return 0
        expired = ledger.read_expired(self.catalog, claim, now=self.now)
        with self.catalog.write("publish") as connection:
            ledger.finish_expiry(connection, claim, expired, now=self.now)
        return len(expired)

    def form(self, *, max_batches: int = 100, **limits: int) -> int:
        return form(self.catalog, ledger.Forming(max_batches, **limits), now=self.now)

    def send(self, stage: str, *, limit: int = 100, **options: Any) -> list[BatchId]:
        lasting = {"limit": limit, "resend_after_s": LEASE_S}
        ready = ledger.take_ready(self.catalog, stage=stage, now=self.now, **lasting, **options)
        return [batch.id for batch in ready]

    def claim(self, batch_id: BatchId, *, owner: str | None = None, in_company: bool = False) -> ledger.Claim | None:
        return ledger.claim(
            self.catalog,
            batch_id,
            owner=owner or self.owner,
            lease_s=LEASE_S,
            now=self.now,
            max_attempts=MAX_ATTEMPTS,
            in_company=in_company,
        )

    def claimed(self, stage: str) -> ledger.Claim:
        """Bring the only batch of a stage to a claim."""
        if stage == "chunk":
            self.form()
        (batch_id,) = self.send(stage)
        claim = self.claim(batch_id)
        assert claim is not None
        return claim

    def finish_merge(self, claim: ledger.Claim, *, name: str | None = None) -> dict[str, Any]:
        """Write a merged segment of a few bytes and make it wait for its swap. Returns the details of that."""
        details = self.merged(name=name, inputs=claim.details.get("segments", ()))
        ledger.finish_merge(self.catalog, self.objects, claim, details=details, now=self.now)
        return details

    def merged(self, *, name: str | None = None, inputs: Sequence[str] = ()) -> dict[str, Any]:
        """Write a merged segment of a few bytes, which nothing names yet."""
        segment = SegmentId(name or new_id("seg"))
        file = file_entry(paths.segment(self.tenant, self.collection.generation.id, segment), [b"merged"])
        self.objects.put(file.name, [b"merged"])
        return Swap([*map(SegmentId, inputs)], SegmentEntry(segment, "flat", 1, 1, 1, [file])).to_details()

    def cut(self, claim: ledger.Claim) -> list[ledger.EmbedPart]:
        """Cut the claimed documents into parts of one group; every document has one chunk in every part."""
        group = BatchId(new_id("batch"))
        ids = [version.id for version in claim.versions]
        for part in range(self.parts):
            self.objects.put(f"staging/{group}/{part}", [b"chunks"])
        return [
            ledger.EmbedPart(
                batch_id=BatchId(new_id("batch")),
                group_id=group,
                part=part,
                input=f"staging/{group}/{part}",
                document_version_ids=ids,
                chunk_counts=dict.fromkeys(ids, 1),
                chunk_count=len(ids),
                size_bytes=10,
                titles={},
            )
            for part in range(self.parts)
        ]

    def finish_chunking(
        self,
        claim: ledger.Claim,
        *,
        parts: Sequence[ledger.EmbedPart] | None = None,
        failed: Sequence[ledger.FailedDocument] = (),
    ) -> None:
        cut = self.cut(claim) if parts is None else parts
        ledger.finish_chunking(self.catalog, self.objects, claim, parts=cut, failed=failed, now=self.now)

    def finish_embedding(self, claim: ledger.Claim, *, cache_hits: int = 0) -> bool:
        output = f"vectors-{claim.batch_id}-{claim.attempt}"
        return ledger.finish_embedding(self.catalog, claim, output=output, cache_hits=cache_hits, now=self.now)

    def claim_index(
        self, *, owner: str | None = None, max_chunks: int = 10_000, max_generations: int = 1_000
    ) -> list[ledger.IndexGroup]:
        return ledger.claim_index(
            self.catalog,
            shard=0,
            owner=owner or self.owner,
            lease_s=LEASE_S,
            now=self.now,
            max_chunks=max_chunks,
            max_generations=max_generations,
            max_attempts=MAX_ATTEMPTS,
        )

    def publish(self, groups: Sequence[ledger.IndexGroup]) -> None:
        with self.catalog.write("publish") as connection:
            newest = connection.scalar(sa.select(sa.func.max(versions.c.indexed_version))) or 0
            ledger.finish_indexing(connection, groups, version=ManifestVersion(newest + 1), now=self.now)

    def reconcile(self) -> ledger.Reconciled:
        return ledger.reconcile(self.catalog, now=self.now, max_attempts=MAX_ATTEMPTS)

    def retry(self, claim: ledger.Held, *, error: str = "it broke", **options: Any) -> None:
        ledger.retry_later(self.catalog, claim, error=error, now=self.now, delay_s=0.0, **options)

    def chunk(self) -> None:
        self.form()
        for batch_id in self.send("chunk"):
            if (claim := self.claim(batch_id)) is not None:
                self.finish_chunking(claim)

    def embed(self) -> None:
        for batch_id in self.send("embed"):
            if (claim := self.claim(batch_id)) is not None:
                self.finish_embedding(claim)

    def index(self) -> None:
        while groups := self.claim_index():
            self.publish(groups)

    def run(self, *, rounds: int = 12) -> None:
        """Let every role work, and every lease lapse in between, until nothing is left to do."""
        for _ in range(rounds):
            self.chunk()
            self.embed()
            self.index()
            self.now += LEASE_S + 1
            self.reconcile()
            if not self.unfinished():
                return
        raise AssertionError(f"still unfinished: {self.states()}")

    def states(self) -> dict[str, list[str]]:
        """Return the states of each document's versions, oldest first, by source."""
        found: dict[str, list[str]] = {}
        wanted = sa.select(documents.c.source, versions.c.state).join(versions, OF_DOCUMENT)
        wanted = wanted.order_by(documents.c.source, sa.func.coalesce(versions.c.number, 0), versions.c.id)
        with self.catalog.read() as connection:
            for source, state in connection.execute(wanted):
                found.setdefault(source, []).append(state)
        return found

    def unfinished(self) -> bool:
        return any(state not in VERSION_FINAL_STATES for states in self.states().values() for state in states)

    def batch_states(self, stage: str) -> list[str]:
        wanted = sa.select(batches.c.state).where(batches.c.stage == stage).order_by(batches.c.id)
        with self.catalog.read() as connection:
            return list(connection.scalars(wanted))

    def version_rows(self, *columns: str) -> list[tuple[Any, ...]]:
        wanted = sa.select(*(versions.c[name] for name in columns)).order_by(versions.c.id)
        with self.catalog.read() as connection:
            return [tuple(row) for row in connection.execute(wanted)]

    def set_budget(self, *, month: float | None = None, job: tuple[JobId, float] | None = None) -> None:
        """Bound what every tenant may spend in a month, and one job in all."""
        with self.catalog.write() as connection:
            if month is not None:
                connection.execute(sa.update(tenants).values(monthly_budget_usd=month))
            if job is not None:
                connection.execute(sa.update(jobs).where(jobs.c.id == job[0]).values(budget_usd=job[1]))


def new_line(
    catalog: Catalog, *, tenant: TenantId = TENANT, name: str = "papers", model: str = "hash", **options: Any
) -> Line:
    collection = create_collection(
        catalog,
        tenant=tenant,
        name=name,
        model=model,
        dimensions=8,
        metric="cosine",
        chunking={"strategy": "auto"},
        shards=1,
        now=1.0,
    )
    return Line(catalog, collection, tenant=tenant, **options)


def rows(catalog: Catalog, *, without: Iterable[str] = ()) -> Mapping[str, list[str]]:
    """Return every row of every table, to compare before with after."""
    with catalog.read() as connection:
        return {
            table.name: sorted(repr(tuple(row)) for row in connection.execute(sa.select(table)))
            for table in metadata.sorted_tables
            if table.name not in without
        }


def waits_for_turns(catalog: Catalog) -> bool:
    """Return whether somebody waits at a PostgreSQL server for another to have taken turns."""
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with catalog.read() as connection:
        return bool(connection.exec_driver_sql(waits).scalar())
