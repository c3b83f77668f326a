"""The line of roles whose documents are really published: for tests in which catalog and index must agree."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from penstock.storage import ledger
from penstock.storage.catalog.collections import CollectionInfo, get_collection
from penstock.storage.catalog.documents import DocumentInfo, list_documents
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.generations import generation_info
from penstock.storage.catalog.tables import versions
from penstock.storage.ids import GenerationId, ManifestVersion
from penstock.storage.intake.documents import SubmittedDocument
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing.planning import FAN_IN
from penstock.storage.publishing.publisher import PublishedManifest, Publisher, acquire_lease
from penstock.storage.publishing.rollbacks import plan_rollback
from penstock.storage.search.versions import open_snapshot
from penstock.storage.segments.records import DocumentRecord
from penstock.storage.segments.rows import Rows, chunk_identity
from penstock.workers.changes import changes_of

from .ledger_line import LEASE_S, MAX_ATTEMPTS, Line, new_line
from .storage_samples import unit_vectors


@dataclass
class ServedLine(Line):
    """``publish`` writes segments: a document has one chunk per line of its text."""

    epoch: int | None = None
    fan_in: int = FAN_IN

    def clock(self) -> float:
        self.now += 1
        return self.now

    @property
    def publisher(self) -> Publisher:
        return Publisher(self.catalog, self.objects, clock=self.clock, fan_in=self.fan_in)

    def lease(self) -> int:
        if self.epoch is None:
            self.epoch = acquire_lease(self.catalog, shard=0, owner=self.owner, ttl_s=1e9, now=self.now)
            assert self.epoch is not None
        return self.epoch

    def of(self, name: str) -> "ServedLine":
        """Return the same line for another collection of the tenant."""
        return replace(self, collection=get_collection(self.catalog, tenant=self.tenant, name=name))

    def cut(self, claim: ledger.Claim) -> list[ledger.EmbedPart]:
        """Cut as `Line` does, and count the chunks that are served: one a line."""
        counts = {
            one.id: len(
                self.objects.get_range(one.pack, offset=one.pack_offset, size_bytes=one.size_bytes).splitlines()
            )
            for one in claim.versions
        }
        return [replace(part, chunk_counts=counts) for part in super().cut(claim)]

    def put(self, **texts: str) -> None:
        """Submit documents by source, and let every role work on them."""
        self.accept([SubmittedDocument(source, f"{source}.txt", text.encode()) for source, text in texts.items()])
        self.run()

    def ask_rollback(self, version: int) -> ledger.RollbackInfo:
        generation_id = self.collection.generation.id
        return ledger.open_rollback(self.catalog, generation_id=generation_id, version=version, now=self.now)

    def claim_rollback(self) -> ledger.Claim | None:
        return ledger.claim_rollback(
            self.catalog, shard=0, owner=self.owner, lease_s=LEASE_S, now=self.now, max_attempts=MAX_ATTEMPTS
        )

    def carry_out(self, claim: ledger.Claim) -> PublishedManifest:
        """Do what the index role does with a rollback."""
        generation_id, version = claim.generation.id, ManifestVersion(claim.details["version"])
        rollback = plan_rollback(self.catalog, self.objects, generation_id, version=version)

        def finish(connection: sa.Connection, published: PublishedManifest) -> None:
            manifest, now = published.manifest, self.now
            ledger.finish_rollback(connection, claim, rollback, manifest=manifest, changed=published.changed, now=now)

        return self.publisher.publish(
            generation_id, epoch=self.lease(), shard=0, rollback=rollback, in_transaction=finish
        )

    def roll_back(self, version: int) -> PublishedManifest:
        self.ask_rollback(version)
        claim = self.claim_rollback()
        assert claim is not None
        return self.carry_out(claim)

    def publish(self, groups: Sequence[ledger.IndexGroup]) -> None:
        by_generation: dict[GenerationId, list[ledger.IndexGroup]] = {}
        for group in groups:
            by_generation.setdefault(group.generation.id, []).append(group)
        for generation_id, some in by_generation.items():
            self._publish(generation_id, some)

    def _publish(self, generation_id: GenerationId, groups: Sequence[ledger.IndexGroup]) -> None:
        changes = changes_of(groups)
        rows = self._rows([one for group in groups for one in group.versions if one.id in changes.put])

        def finish(connection: sa.Connection, published: PublishedManifest) -> None:
            version, trimmed = published.manifest.version, published.trimmed
            ledger.finish_indexing(connection, groups, version=version, now=self.now, trimmed=trimmed)

        self.publisher.publish(
            generation_id,
            epoch=self.lease(),
            shard=0,
            additions=rows,
            vectors=np.concatenate([vector_of(text)[None] for text in rows.texts()]) if rows else None,
            removed_document_ids=changes.removed,
            revisions=changes.revisions,
            trims=changes.trims,
            taken=ledger.being_merged(self.catalog, generation_id),
            in_transaction=finish,
        )

    def expire(self) -> int:
        """Take out what has expired in one generation, as the writer does; returns how many documents that were."""
        ledger.open_expiries(self.catalog, now=self.now, every_s=0.0)
        options = {"owner": self.owner, "lease_s": LEASE_S, "now": self.now, "max_attempts": MAX_ATTEMPTS}
        claim = ledger.claim_expiry(self.catalog, shard=0, **options)
        if claim is None:
            return 0
        expired = ledger.read_expired(self.catalog, claim, now=self.now)

        def finish(connection: sa.Connection, _published: PublishedManifest) -> None:
            ledger.finish_expiry(connection, claim, expired, now=self.now)

        gone = [one.document_id for one in expired]
        self.publisher.publish(
            claim.generation.id, epoch=self.lease(), shard=0, removed_document_ids=gone, in_transaction=finish
        )
        return len(expired)

    def _rows(self, put: Sequence[Any]) -> Rows:
        texts = [
            self.objects.get_range(one.pack, offset=one.pack_offset, size_bytes=one.size_bytes).decode().split("\n")
            for one in put
        ]
        pairs = [(owner, ordinal, text) for owner, own in enumerate(texts) for ordinal, text in enumerate(own)]
        places = [place_of(texts[owner], ordinal) for owner, ordinal, _ in pairs]
        return Rows.build(
            [_record(version) for version in put],
            document=[owner for owner, _, _ in pairs],
            ordinal=[ordinal for _, ordinal, _ in pairs],
            start=[start for start, _, _, _ in places],
            end=[end for _, end, _, _ in places],
            page=[-1 if page is None else page for _, _, page, _ in places],
            tokens=[1] * len(pairs),
            identity=[chunk_identity(text, chunking={}) for _, _, text in pairs],
            texts=[text for _, _, text in pairs],
            headings=[heading for _, _, _, heading in places],
        )

    def served(self) -> dict[str, list[str]]:
        """Return the texts that the newest version serves, by source."""
        generation = generation_info(self.catalog, self.collection.generation.id)
        snapshot = open_snapshot(self.objects, generation)
        found: dict[str, list[str]] = {}
        for hit in snapshot.search(np.ones(8, np.float32), k=1_000, now=0.0):
            found.setdefault(hit.document.source, []).append(hit.text)
        return {source: sorted(own) for source, own in sorted(found.items())}

    def listed(self) -> dict[str, DocumentInfo]:
        """Return the documents as their owner sees them, by source."""
        page = list_documents(self.catalog, tenant=self.tenant, collection_id=self.collection.id, limit=1_000)
        return {info.source: info for info in page}

    def indexed(self) -> dict[str, int]:
        """Return the number of the version of each document that the catalog calls indexed, by document id."""
        wanted = sa.select(versions.c.document_id, versions.c.number)
        wanted = wanted.where(versions.c.collection_id == self.collection.id, versions.c.state == "indexed")
        with self.catalog.read() as connection:
            return {row.document_id: row.number for row in connection.execute(wanted)}

    def numbers(self) -> dict[str, int]:
        """Return what `indexed` should: the numbers that the newest version serves, by document id."""
        generation = generation_info(self.catalog, self.collection.generation.id)
        snapshot = open_snapshot(self.objects, generation)
        hits = snapshot.search(np.ones(8, np.float32), k=1_000, now=0.0)
        return {hit.document.document_id: hit.document.number for hit in hits}


def place_of(lines: Sequence[str], ordinal: int) -> tuple[int, int, int | None, str | None]:
    """Return start, end, page and heading of a chunk of a document of these lines: others for each line and place."""
    start = sum(len(line) + 1 for line in lines[:ordinal])
    heading = f"Heading of {lines[ordinal]}" if len(lines) % 2 else None
    return start, start + len(lines[ordinal]), ordinal or None, heading


def vector_of(text: str) -> NDArray[np.float32]:
    """Return the vector f32[8] of a chunk of this text, of unit length."""
    return unit_vectors(1, seed=crc32(text.encode()))[0]


def new_served_line(catalog: Catalog, folder: Path, **options: Any) -> ServedLine:
    line = new_line(catalog, **options)
    return ServedLine(catalog, line.collection, tenant=line.tenant, objects=LocalObjects(folder / "objects"))


def collection_of(line: Line) -> CollectionInfo:
    return get_collection(line.catalog, tenant=line.tenant, name=line.collection.name)


def _record(version: Any) -> DocumentRecord:
    return DocumentRecord(
        document_id=version.document_id,
        version_id=version.id,
        number=version.number,
        source=version.source,
        title=version.title,
        metadata=dict(version.metadata),
        event_time=version.event_time,
        expires_at=version.expires_at,
        ingested_at=version.created_at,
        media_type=version.media_type or "text/plain",
        original={
            "filename": version.filename,
            "media_type": version.media_type,
            "pack": version.pack,
            "pack_offset": version.pack_offset,
            "size_bytes": version.size_bytes,
            "content_hash": version.content_hash.hex(),
            "metadata_hash": version.metadata_hash.hex(),
        },
    )
