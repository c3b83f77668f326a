"""The embed role: from staged chunks to staged vectors. One refused text fails its document, not its batch."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.pipeline.embedding.cached import embed_with_cache
from penstock.pipeline.errors import InputRejected
from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage import ledger
from penstock.storage.failpoints import hit
from penstock.storage.ids import BatchId, VersionId
from penstock.storage.segments.rows import Rows

from . import routes, staging
from .claims import Claims, ids
from .components import Components
from .liveness import Liveness

log = logging.getLogger(__name__)


class Embedding:
    """The role's process: `Role` of ``roles.py``. Its tasks run in threads."""

    def __init__(self, settings: Settings, *, liveness: Liveness) -> None:
        self._settings = settings
        self._liveness = liveness

    def open(self) -> None:
        self._components = Components.open(self._settings, role="embed")
        self._cache = wiring.open_cache(self._settings)
        self._claims = Claims(self._components)

    def close(self) -> None:
        self._claims.close()
        self._components.close()

    def tasks(self) -> Mapping[str, Callable[..., Any]]:
        return {routes.EMBED: self.embed}

    def embed(self, batch_id: str) -> None:
        """Bring one embed batch to its end, or hand it back."""
        began = time.perf_counter()
        with self._claims.working(BatchId(batch_id)) as claim:
            if claim is None:
                return
            if self._liveness.stopping:
                self._claims.hand_back(claim)
                return
            made = self._embed(claim)
            self._claims.outages.over(claim.generation.model)
            took_ms = (time.perf_counter() - began) * 1e3
            log.info("Embedded %d chunks in %.0f ms, %d cached.", made.chunks, took_ms, made.hits, extra=ids(claim))

    def _embed(self, claim: ledger.Claim) -> "_Made":
        components = self._components
        rows = staging.read_chunks(components.objects, claim.input or "")
        vectors, made = self._vectors(claim, rows)
        hit("embed.embedded")
        output = staging.write_vectors(
            components.objects, vectors, tenant=claim.tenant_id, batch_id=claim.batch_id, attempt=claim.attempt
        )
        now = components.clock()
        ledger.finish_embedding(
            components.catalog,
            claim,
            output=output,
            cache_hits=made.hits,
            tokens=made.tokens,
            cost_usd=made.cost_usd,
            now=now,
        )
        components.notices.work_ready()
        return made

    def _vectors(self, claim: ledger.Claim, rows: Rows) -> "tuple[NDArray[np.float32], _Made]":
        """Return f32[len(rows), d]: zeros for chunks that nobody wants any more."""
        embedder = self._components.embedders.of(claim.generation.model, claim.generation.dimensions)
        vectors = np.zeros((len(rows), claim.generation.dimensions), np.float32)
        wanted: set[str] = {version.id for version in claim.versions}
        while True:
            chosen = np.flatnonzero(staging.wanted_rows(rows, wanted)).tolist()
            texts = [rows.text(index) for index in chosen]
            try:
                found, hits, asked = embed_with_cache(embedder, self._cache, claim.tenant_id, texts)
            except InputRejected as error:
                if error.index is None:
                    raise
                wanted.discard(self._refuse(rows, chosen[error.index], error))
                continue
            vectors[chosen] = found
            tokens = int(rows.tokens[[chosen[index] for index in asked]].sum())
            price = embedder.card.price_per_million_tokens
            cost_usd = None if price is None else tokens * price / 1e6
            return vectors, _Made(chunks=len(chosen), hits=hits, tokens=tokens, cost_usd=cost_usd)

    def _refuse(self, rows: Rows, index: int, error: InputRejected) -> str:
        """Fail the document of one row and return its version's id. The last of its batch: the claim is then lost."""
        components = self._components
        version = rows.documents[int(rows.document[index])].version_id
        failure = ledger.FailedDocument(VersionId(version), "input_rejected", str(error))
        ledger.fail_versions(components.catalog, failures=[failure], stage="embed", now=components.clock())
        return version


@dataclass(frozen=True)
class _Made:
    """What embedding a batch took: ``hits`` of its chunks came from the cache; ``tokens`` are those of the others."""

    chunks: int
    hits: int
    tokens: int
    cost_usd: float | None
