"""Every object name of the store, in one place. Nothing here touches the store.

tenants/<tenant>/packs/<blake2b-256 of the pack>
tenants/<tenant>/staging/<batch>/chunks
tenants/<tenant>/staging/<batch>/vectors-<attempt>
tenants/<tenant>/staging/<batch>/ordered-<delivery>
tenants/<tenant>/generations/<generation>/segments/<segment>.segment
tenants/<tenant>/generations/<generation>/segments/<segment>.hnsw
tenants/<tenant>/generations/<generation>/deletes/<id>.deletes
tenants/<tenant>/generations/<generation>/manifests/<version, 20 digits>-<8 hex>.json
"""

import re

from .errors import InvalidName
from .ids import BatchId, GenerationId, ManifestVersion, SegmentId, TenantId

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_MANIFEST = re.compile(r"(\d{20})-([0-9a-f]{8})\.json")


def checked_object_name(name: str) -> str:
    """Return ``name`` if it is relative, its parts are plain words, and none of them begins with a dot.

    Raises:
        InvalidName: it could leave the store's root, or means something to a file system or a URL.
    """
    parts = name.split("/")
    if len(name) > 1000 or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidName(f"object name {name!r} is not allowed: use words of A-Z a-z 0-9 . _ - joined by '/'")
    return name


def tenant_prefix(tenant: TenantId) -> str:
    return f"tenants/{tenant}/"


def packs_prefix(tenant: TenantId) -> str:
    return f"tenants/{tenant}/packs/"


def pack(tenant: TenantId, *, digest: str) -> str:
    """Name the pack of one submission; ``digest`` is the blake2b-256 of its bytes in hex."""
    return f"{packs_prefix(tenant)}{digest}"


def staging_prefix(tenant: TenantId, batch: BatchId | None = None) -> str:
    """Return where a batch stages its objects; without a batch, where all of the tenant's do."""
    return f"tenants/{tenant}/staging/" + (f"{batch}/" if batch else "")


def batch_of(staged: str) -> BatchId:
    """Return the batch to which a staged object's name belongs."""
    return BatchId(staged.split("/")[3])


def staged_chunks(tenant: TenantId, batch: BatchId, *, attempt: int | None = None) -> str:
    return f"{staging_prefix(tenant, batch)}chunks" + ("" if attempt is None else f"-{attempt}")


def staged_vectors(tenant: TenantId, batch: BatchId, *, attempt: int) -> str:
    return f"{staging_prefix(tenant, batch)}vectors-{attempt}"


def staged_delivered(tenant: TenantId, batch: BatchId, *, delivery: str) -> str:
    return f"{staging_prefix(tenant, batch)}ordered-{delivery}"


def generations_prefix(tenant: TenantId) -> str:
    return f"tenants/{tenant}/generations/"


def generation_of(name: str) -> GenerationId:
    """Return the generation to which the name of a segment, manifest or tombstones belongs."""
    return GenerationId(name.split("/")[3])


def generation_prefix(tenant: TenantId, generation: GenerationId) -> str:
    return f"{generations_prefix(tenant)}{generation}/"


def segment(tenant: TenantId, generation: GenerationId, segment_id: SegmentId) -> str:
    return f"{generation_prefix(tenant, generation)}segments/{segment_id}.segment"


def graph(tenant: TenantId, generation: GenerationId, segment_id: SegmentId) -> str:
    return f"{generation_prefix(tenant, generation)}segments/{segment_id}.hnsw"


def deletes(tenant: TenantId, generation: GenerationId, deletes_id: str) -> str:
    return f"{generation_prefix(tenant, generation)}deletes/{deletes_id}.deletes"


def manifests_prefix(tenant: TenantId, generation: GenerationId) -> str:
    return f"{generation_prefix(tenant, generation)}manifests/"


def manifest(tenant: TenantId, generation: GenerationId, *, version: ManifestVersion, digest: str) -> str:
    """Name a manifest; ``digest`` is the hex blake2b of its content, so that rivals for one version never meet."""
    return f"{manifests_prefix(tenant, generation)}{version:020d}-{digest[:8]}.json"


def manifest_version(name: str) -> ManifestVersion | None:
    """Return the version in a manifest's object name, or None when ``name`` is not a manifest's."""
    match = _MANIFEST.fullmatch(name.rpartition("/")[2])
    return ManifestVersion(int(match[1])) if match else None
