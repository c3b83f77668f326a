"""What the stages hand to each other through the object store: chunks for embed, vectors for index.

Written once under names that no other attempt uses, verified when read, deleted when published.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.storage import paths
from penstock.storage.errors import Damaged, NotFound
from penstock.storage.ids import BatchId, TenantId, new_id
from penstock.storage.objects.store import ObjectStore
from penstock.storage.segments.rows import Rows
from penstock.storage.segments.sections import Sections, open_sections, write_sections

CHUNKS_KIND = "staged-chunks"
VECTORS_KIND = "staged-vectors"
DELIVERED_KIND = "staged-delivered"


def write_chunks(
    objects: ObjectStore, rows: Rows, *, tenant: TenantId, batch_id: BatchId, attempt: int | None = None
) -> str:
    """Store the chunks of one embed batch and return the object's name; ``attempt``: where several may store some."""
    name = paths.staged_chunks(tenant, batch_id, attempt=attempt)
    objects.put(name, write_sections(CHUNKS_KIND, meta={}, arrays=rows.to_arrays()))
    return name


def write_asked(objects: ObjectStore, rows: Rows, *, tenant: TenantId, batch_id: BatchId) -> str:
    """Store chunks of which some are to be ordered, where nobody staged them yet, and return the object's name."""
    name = paths.staged_delivered(tenant, batch_id, delivery=new_id("asked"))
    objects.put(name, write_sections(CHUNKS_KIND, meta={}, arrays=rows.to_arrays()))
    return name


def read_chunks(objects: ObjectStore, name: str) -> Rows:
    """Return staged chunks, mapped. Raises NotFound, Damaged."""
    return Rows.from_sections(_verified(objects, name, kind=CHUNKS_KIND))


def write_vectors(
    objects: ObjectStore, vectors: NDArray[np.float32], *, tenant: TenantId, batch_id: BatchId, attempt: int
) -> str:
    """Store f32[n, d], one row per staged chunk, and return the object's name."""
    name = paths.staged_vectors(tenant, batch_id, attempt=attempt)
    objects.put(name, write_sections(VECTORS_KIND, meta={}, arrays={"vectors": vectors}))
    return name


def read_vectors(objects: ObjectStore, name: str, *, count: int) -> NDArray[np.float32]:
    """Return staged vectors f32[count, d], mapped. Raises NotFound, Damaged."""
    vectors = _verified(objects, name, kind=VECTORS_KIND).arrays.get("vectors")
    if vectors is None or vectors.ndim != 2 or len(vectors) != count or vectors.dtype != np.float32:
        raise Damaged(f"{name} does not hold one vector for each of {count} chunks")
    return vectors


def write_delivered(
    objects: ObjectStore, delivered: Mapping[bytes, NDArray[np.float32]], *, tenant: TenantId, batch_id: BatchId
) -> str:
    """Store vectors f32[d] by the digest of their text, which an order brought, and return the object's name."""
    name = paths.staged_delivered(tenant, batch_id, delivery=new_id("delivery"))
    digests = np.frombuffer(b"".join(delivered), np.uint8).reshape(len(delivered), -1)
    arrays: dict[str, NDArray[Any]] = {"digests": digests, "vectors": np.stack(list(delivered.values()))}
    objects.put(name, write_sections(DELIVERED_KIND, meta={}, arrays=arrays))
    return name


def read_delivered(objects: ObjectStore, names: Sequence[str], *, dimensions: int) -> dict[bytes, NDArray[np.float32]]:
    """Return what orders brought, f32[dimensions] by the digest of the text. What is lost or damaged is not there."""
    found: dict[bytes, NDArray[np.float32]] = {}
    for name in names:
        with suppress(NotFound, Damaged):
            arrays = _verified(objects, name, kind=DELIVERED_KIND).arrays
            if arrays["vectors"].shape == (len(arrays["digests"]), dimensions):
                found |= dict(zip(map(bytes, arrays["digests"]), arrays["vectors"], strict=True))
    return found


def read_wanted(
    objects: ObjectStore, parts: Sequence[tuple[str, str]], *, wanted: Collection[str]
) -> tuple[Rows, NDArray[np.float32]]:
    """Return the chunks of the ``wanted`` versions in ``parts`` (chunks, vectors), and their vectors f32[n, d].

    What is wanted whole is not copied more than joining needs. Of no parts there are no chunks, and f32[0, 0].
    Raises NotFound, Damaged.
    """
    if not parts:
        return Rows.empty(), np.empty((0, 0), np.float32)
    several: list[Rows] = []
    vectors: list[NDArray[np.float32]] = []
    for chunks_name, vectors_name in parts:
        rows = read_chunks(objects, chunks_name)
        found = read_vectors(objects, vectors_name, count=len(rows))
        mask = wanted_rows(rows, wanted)
        several.append(rows if mask.all() else rows.take(mask))
        vectors.append(found if mask.all() else found[mask])
    if len(several) == 1:
        return several[0], vectors[0]
    return Rows.concat(several), np.concatenate(vectors)


def read_all(objects: ObjectStore, parts: Sequence[tuple[str, str]]) -> tuple[Rows, NDArray[np.float32]]:
    """Return all chunks in ``parts`` (chunks, vectors), and their vectors f32[n, d]. Raises NotFound, Damaged."""
    rows = [read_chunks(objects, chunks) for chunks, _ in parts]
    vectors = [read_vectors(objects, name, count=len(some)) for (_, name), some in zip(parts, rows, strict=True)]
    return Rows.concat(rows), np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32)


def wanted_rows(rows: Rows, wanted: Collection[str]) -> NDArray[np.bool_]:
    """Return a mask of the rows that belong to the ``wanted`` document versions."""
    kept = np.fromiter((record.version_id in wanted for record in rows.documents), np.bool_, len(rows.documents))
    return kept[rows.document]


def _verified(objects: ObjectStore, name: str, *, kind: str) -> Sections:
    sections = open_sections(objects.local_path(name), kind=kind)
    sections.verify()
    return sections
