"""Words what storage/ returns as wire types. Reads nothing, decides nothing."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.documents import DocumentInfo
from penstock.storage.catalog.generations import GenerationInfo
from penstock.storage.catalog.jobs import JobInfo
from penstock.storage.catalog.manifests import ManifestInfo
from penstock.storage.catalog.tenants import TenantInfo
from penstock.storage.costs import Purse
from penstock.storage.ledger import Pauses, RollbackInfo, Setback
from penstock.storage.ledger.deliveries import DeliveryInfo
from penstock.storage.reembedding.records import ReembeddingInfo
from penstock.storage.schedules import ScheduleInfo
from penstock.storage.segments.differences import Change
from penstock.storage.segments.manifests import SegmentEntry
from penstock.storage.tokens import token_of

JSON = "application/json"


def answer(content: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return ``content`` as JSON in one pass, without checking our own answer once more."""
    return Response(to_json(content), status_code=status, headers=headers, media_type=JSON)


def tenant(info: TenantInfo, purse: Purse) -> dict[str, Any]:
    return {
        "name": info.id,
        "created_at": info.created_at,
        "weight": info.weight,
        "max_backlog_documents": info.max_backlog_documents,
        "max_backlog_bytes": info.max_backlog_bytes,
        "monthly_budget_usd": info.monthly_budget_usd,
        "month_spent_usd": purse.spent_usd,
        "month_reserved_usd": purse.reserved_usd,
        "paused_at": info.paused_at,
        "record_queries": info.record_queries,
        "waiting_documents": info.waiting.documents,
        "waiting_bytes": info.waiting.size_bytes,
    }


def pause(pauses: Pauses) -> dict[str, Any]:
    return {"paused_at": pauses.since, "tenants": list(pauses.tenants)}


def collection(info: CollectionInfo) -> dict[str, Any]:
    generation = info.generation
    return {
        "id": info.id,
        "name": info.name,
        "created_at": info.created_at,
        **_generation(generation),
        "metric": generation.metric,
        "published_at": generation.published_at,
        "documents": dict(info.documents),
        "token": token_of(generation.id, generation.version),
        "keep_versions": info.keep_versions,
        "keep_s": info.keep_s,
    }


def document(info: DocumentInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "source": info.source,
        "title": info.title,
        "filename": info.filename,
        "media_type": info.media_type,
        "size_bytes": info.size_bytes,
        "metadata": dict(info.metadata),
        "event_time": info.event_time,
        "expires_at": info.expires_at,
        "version": info.number,
        "state": info.state,
        "stage": info.stage,
        "error_code": info.error_code,
        "error": info.error,
        "attempts": info.attempts,
        "first_attempt_at": info.first_attempt_at,
        "last_attempt_at": info.last_attempt_at,
        "former_death": None if info.former_death is None else dict(info.former_death),
        "chunks": info.chunk_count,
        "created_at": info.created_at,
        "finished_at": info.finished_at,
        "indexed_version": info.indexed_version,
        "searchable_version": info.searchable_number,
        "searchable_at": info.searchable_at,
        "job_id": info.job_id,
    }


def job(info: JobInfo, *, now: float) -> dict[str, Any]:
    return {
        "id": info.id,
        "collection": info.collection,
        "state": info.state,
        "created_at": info.created_at,
        "finished_at": info.finished_at,
        "documents": dict(info.documents),
        "chunks_total": info.chunks_total,
        "chunks_embedded": info.chunks_embedded,
        "chunks_indexed": info.chunks_indexed,
        "chunks_expected": info.chunks_expected,
        "chunks_per_s": _rounded(info.chunks_per_s(now)),
        "left_s": _rounded(info.left_s(now)),
        "cache_hits": info.cache_hits,
        "embedded_tokens": info.embedded_tokens,
        "cost_usd": info.cost_usd,
        "budget_usd": info.budget_usd,
        "chunks_reused": info.chunks_reused,
        "unchanged": info.unchanged,
        "held_up": None if info.held_up is None else asdict(info.held_up),
        "token": token_of(*info.token) if info.token else None,
    }


def setback(info: Setback) -> dict[str, Any]:
    return {"count": info.count, "given_up_at": info.given_up_at, "again_at": info.again_at, "error": info.error}


def delivery(info: DeliveryInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "job_id": info.job_id,
        "url": info.url,
        "state": info.state,
        "attempts": info.attempts,
        "next_attempt_at": info.next_attempt_at if info.finished_at is None else None,
        "status": info.status,
        "error": info.error,
        "created_at": info.created_at,
        "finished_at": info.finished_at,
    }


def schedule(info: ScheduleInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "tenant": info.tenant_id,
        "collection": info.collection,
        "action": info.action,
        "options": dict(info.options),
        **asdict(info.cadence),
        "next_run_at": info.next_run_at if info.paused_at is None else None,
        "paused_at": info.paused_at,
        "last_success_at": info.last_success_at,
        "created_at": info.created_at,
        "last_run": None if info.last_run is None else asdict(info.last_run),
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)


def snapshot(info: ManifestInfo) -> dict[str, Any]:
    origin = info.origin
    return {
        "version": info.version,
        "operation": origin.operation,
        "origin": None if origin.version is None else {"generation": origin.generation_id, "version": origin.version},
        "current": info.followed_at is None,
        "created_at": info.created_at,
        "followed_at": info.followed_at,
        "segments": info.segment_count,
        "chunks": info.live_chunks,
        "size_bytes": info.size_bytes,
        "tags": list(info.tags),
        "token": token_of(info.generation_id, info.version),
    }


def rollback(info: RollbackInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "version": info.version,
        "state": info.state,
        "error": info.error,
        "published": info.published,
        "created_at": info.created_at,
        "finished_at": info.finished_at,
        "token": None if info.published is None else token_of(info.generation_id, info.published),
    }


def reembedding(info: ReembeddingInfo) -> dict[str, Any]:
    same = ("id", "state", "recuts", "caught_up", "chunks_total", "chunks_copied", "documents_copied", "cache_hits",
            "chunks_reused", "embedded_tokens", "cost_usd", "budget_usd", "report", "paused_at", "error", "created_at",
            "switched_at", "finished_at")  # fmt: skip
    return {
        **{name: getattr(info, name) for name in same},
        "serving": {"id": info.source.id, **_generation(info.source)},
        "other": {"id": info.target.id, **_generation(info.target)},
        "held_up": None if info.held_up is None else vars(info.held_up),
        "kept_until": info.kept_until,
    }


def _generation(generation: GenerationInfo) -> dict[str, Any]:
    return {
        "model": generation.model,
        "dimensions": generation.dimensions,
        "quantization": generation.quantization,
        "chunking": dict(generation.chunking),
        "version": generation.version,
        "chunks": generation.live_chunks,
    }


def snapshot_part(entry: SegmentEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "kind": entry.kind,
        "chunks": entry.live_count,
        "deleted": entry.deleted_count,
        "size_bytes": sum(file.size_bytes for file in entry.all_files),
    }


def change(one: Change) -> dict[str, Any]:
    before, after = one.before, one.after
    return {
        "id": one.document.document_id,
        "source": one.document.source,
        "title": one.document.title,
        "change": "added" if before is None else "removed" if after is None else "changed",
        "version_before": before and before.document.number,
        "version_after": after and after.document.number,
        "chunks_before": before.chunks if before else 0,
        "chunks_after": after.chunks if after else 0,
    }


def page(found: Sequence[dict[str, Any]], *, limit: int) -> dict[str, Any]:
    """Return one page of ``limit`` entries out of up to one more, which only says that there is a next page."""
    shown = list(found[:limit])
    return {"data": shown, "has_more": len(found) > limit, "last_id": shown[-1]["id"] if shown else None}
