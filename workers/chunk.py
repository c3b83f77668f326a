"""The chunk role: from submitted bytes to staged chunks. One bad document fails alone, with its reason.

It runs in prefork children, where a document that takes the process down takes nobody else along.
"""

import logging
import resource
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from penstock.pipeline.chunking import Fit, ResolvedChunking
from penstock.pipeline.parsing import ParseLimits
from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage import ledger
from penstock.storage.catalog.generations import GenerationInfo
from penstock.storage.errors import Damaged, Unavailable
from penstock.storage.figures import Figure
from penstock.storage.ids import BatchId, VersionId, new_id
from penstock.storage.reembedding.slices import fail_slice, finish_cutting

from . import routes, staging
from .alarms import Alarm
from .claims import Claims, ids
from .components import Components
from .documents import ChunkedDocument, Chunking, chunk_document, failure_of, rows_of
from .liveness import Liveness
from .packing import Group, Part, pack, part_chunks_of
from .recutting import CannotCut, Cutting, recut_slice
from .submitted import SubmittedBytes
from .turn import Turn

log = logging.getLogger(__name__)


class Chunker:
    """The role's process: `Role` of ``roles.py``."""

    def __init__(self, settings: Settings, *, liveness: Liveness) -> None:
        self._settings = settings
        self._liveness = liveness
        self._limits: ParseLimits = wiring.parse_limits(settings)

    def open(self) -> None:
        _limit_memory(self._settings.workers.chunk_memory_bytes)
        self._components = Components.open(self._settings, role="chunk", embed_threads=1)
        self._claims = Claims(self._components, liveness=self._liveness)
        self._alarm = Alarm()
        self._chunkings: dict[str, Chunking] = {}

    def close(self) -> None:
        self._claims.close()
        self._components.close()

    def tasks(self) -> Mapping[str, Callable[..., Any]]:
        return {routes.CHUNK: self.chunk}

    def chunk(self, batch_id: str) -> list[BatchId]:
        """Bring one chunk batch to its end, or hand it back. Returns what it made for the same worker to embed."""
        made: list[BatchId] = []
        with self._claims.working(BatchId(batch_id)) as claim:
            if claim is None:
                return made
            if claim.reembedding_id is not None:
                self._recut(claim)
                return made
            began, turn = time.perf_counter(), self._turn(claim)  # not before: to wait for the ledger is nobody's turn
            chunking = self._chunking(claim.generation)
            submitted = SubmittedBytes(self._components.objects, claim.versions)
            done: list[ChunkedDocument] = []
            failed: list[ledger.FailedDocument] = []
            left: list[VersionId] = []
            for position, version in enumerate(claim.versions):
                if self._liveness.stopping:
                    self._claims.hand_back(claim)
                    return made
                if position and turn.is_over():
                    left = [one.id for one in claim.versions[position:]]
                    break
                self._chunk_one(claim, version, submitted, chunking, done=done, failed=failed)
            made = self._finish(claim, done, failed, left)
            if failed:
                self._components.figures.add([Figure("penstock_failed_documents", ("chunk",), times=len(failed))])
            took_ms = (time.perf_counter() - began) * 1e3
            log.info(
                "Chunked %d documents into %d chunks in %.0f ms, %d failed, %d left.",
                len(done),
                sum(len(document.chunks) for document in done),
                took_ms,
                len(failed),
                len(left),
                extra=ids(claim),
            )
        return made

    def _recut(self, claim: ledger.Claim) -> None:
        """Cut the documents of a slice anew, for a generation that cuts otherwise than the one that serves."""
        if self._liveness.stopping:
            self._claims.hand_back(claim)
            return
        components = self._components
        catalog, objects = components.catalog, components.objects
        alarmed = partial(self._alarm.after, self._limits.timeout_s)
        cutting = Cutting(objects, self._chunking(claim.generation), self._limits, alarmed)
        try:
            parts = recut_slice(cutting, claim)
            finish_cutting(catalog, objects, claim, parts=parts, now=components.clock())
            log.info("Cut documents anew into %d chunks.", sum(part.chunk_count for part in parts), extra=ids(claim))
        except CannotCut as error:
            log.info("A re-embedding stands still: a document cannot be cut anew.", extra=ids(claim))
            fail_slice(catalog, claim, error=str(error), now=components.clock())
        components.notices.work_ready()

    def _turn(self, claim: ledger.Claim) -> Turn:
        components = self._components

        def others_wait(had_turn: bool) -> bool:
            with suppress(Unavailable):  # whoever waits then waits no longer than for the end of a turn
                return ledger.others_wait(components.catalog, claim, now=components.clock(), had_turn=had_turn)
            return had_turn

        return Turn(others_wait)

    def _chunk_one(
        self,
        claim: ledger.Claim,
        version: ledger.VersionRow,
        submitted: SubmittedBytes,
        chunking: Chunking,
        *,
        done: list[ChunkedDocument],
        failed: list[ledger.FailedDocument],
    ) -> None:
        try:
            data = submitted.read(version)
            with self._alarm.after(self._limits.timeout_s):
                document = chunk_document(version, data, chunking=chunking, limits=self._limits)
            done.append(document)
        except Exception as error:
            failure = failure_of(version, error, limits=self._limits)
            if failure is None:
                raise
            about = ids(claim, version=version)
            if isinstance(error, Damaged):  # its owner is not told where it lies; who runs this has to look at a disk
                log.warning("Object %s is damaged: a document fails.", version.pack, extra=about)
            log.info("A document fails: %s.", failure.code, extra=about)
            failed.append(failure)
        self._liveness.moved()

    def _finish(
        self,
        claim: ledger.Claim,
        done: list[ChunkedDocument],
        failed: list[ledger.FailedDocument],
        left: list[VersionId],
    ) -> list[BatchId]:
        limit = self._chunking(claim.generation).part_chunks
        groups = pack([len(document.chunks) for document in done], limit=limit)
        parts = [part for group in groups for part in self._stage(claim, group, done)]
        now = self._components.clock()
        catalog, objects = self._components.catalog, self._components.objects
        ledger.finish_chunking(catalog, objects, claim, parts=parts, failed=failed, left=left, now=now)
        made = [part.batch_id for part in parts if claim.express and part.is_short]
        if not made or failed or left or len(made) < len(parts):
            self._components.notices.work_ready()
        return made

    def _stage(self, claim: ledger.Claim, group: Group, done: list[ChunkedDocument]) -> list[ledger.EmbedPart]:
        # New ids in every attempt: what an attempt that died had staged is never written over.
        group_id = BatchId(new_id("group"))
        return [self._stage_part(claim, part, number, group_id, done) for number, part in enumerate(group)]

    def _stage_part(
        self, claim: ledger.Claim, part: Part, number: int, group_id: BatchId, done: list[ChunkedDocument]
    ) -> ledger.EmbedPart:
        batch_id = BatchId(new_id("batch"))
        rows = rows_of(done, part)
        name = staging.write_chunks(self._components.objects, rows, tenant=claim.tenant_id, batch_id=batch_id)
        versions = [done[piece.document].version.id for piece in part]
        return ledger.EmbedPart(
            batch_id=batch_id,
            group_id=group_id,
            part=number,
            input=name,
            document_version_ids=versions,
            chunk_counts={version: piece.stop - piece.start for version, piece in zip(versions, part, strict=True)},
            chunk_count=len(rows),
            size_bytes=int(rows.text_offsets[-1]),
            titles={done[piece.document].version.id: done[piece.document].title for piece in part},
        )

    def _chunking(self, generation: GenerationInfo) -> Chunking:
        if generation.id not in self._chunkings:
            embedder = self._components.embedders.of(generation.model, generation.dimensions)
            limit = embedder.card.input_limit_tokens
            self._chunkings[generation.id] = Chunking(
                part_chunks=part_chunks_of(generation.model),
                config=ResolvedChunking.model_validate(dict(generation.chunking)),
                fit=Fit(limit, embedder.count_tokens) if limit is not None else None,
            )
        return self._chunkings[generation.id]


def _limit_memory(size_bytes: int) -> None:
    """Let a document that grows without end hit a MemoryError, or end this child, before the machine suffers."""
    with suppress(ValueError, OSError):  # a container may allow less, and then does
        resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))
