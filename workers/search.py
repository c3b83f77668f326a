"""The search role: queries, submissions and deletions that come over the queue, answered over it. It publishes nothing.

The only role whose answers are kept for their askers, for a minute, in Redis. Messages carry text here, so this role
sends no task events and answers no remote control.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from penstock.pipeline.embedding.billing import billed_for_searches
from penstock.pipeline.errors import EmbeddingError
from penstock.pipeline.filters import parse_filter
from penstock.pipeline.references import chosen_reference
from penstock.pipeline.removal import Meant, delete_documents
from penstock.pipeline.retrieval import retrieve
from penstock.settings import wiring
from penstock.settings.logs import log_failure
from penstock.settings.model import Settings
from penstock.settings.providers import check_economy, options_of
from penstock.storage.catalog.backlogs import Amount
from penstock.storage.catalog.collections import CollectionInfo, get_collection
from penstock.storage.catalog.generations import is_generation_of, up_to_date_generations
from penstock.storage.catalog.jobs import get_job
from penstock.storage.catalog.references import generation_at
from penstock.storage.catalog.tables import PRIORITIES
from penstock.storage.costs import SearchCosts
from penstock.storage.figures import Figure
from penstock.storage.ids import GenerationId, JobId, TenantId
from penstock.storage.intake.documents import Terms, accept
from penstock.storage.limits import MAX_EF
from penstock.storage.tokens import read_token, token_of

from . import routes
from .components import Components
from .errors import InvalidRequest
from .liveness import Liveness
from .requests import (
    DeleteRequest,
    JobRequest,
    SearchRequest,
    SubmitRequest,
    delete_request,
    job_request,
    refusal,
    search_request,
    submit_request,
)
from .waiting import WaitingPlaces

log = logging.getLogger(__name__)


class Searcher:
    """The role's process: `Role` of ``roles.py``. Its tasks run in threads."""

    def __init__(self, settings: Settings, *, liveness: Liveness) -> None:
        self._settings = settings
        self._liveness = liveness
        self._declared = options_of(settings).declared
        self._places = WaitingPlaces(settings.workers.search_threads)

    def open(self) -> None:
        self._components = components = Components.open(self._settings, role="search", embed_threads=1)
        self._snapshots = wiring.new_snapshots(
            self._settings,
            components.catalog,
            components.objects,
            on_refused=lambda: components.figures.add([Figure("penstock_refused_versions")]),
        )
        self._recorder = wiring.new_recorder(self._settings, components.catalog)
        self._costs = SearchCosts(components.catalog, clock=components.clock)
        self._costs.start()
        self._stop = threading.Event()
        self._listener = threading.Thread(
            target=components.notices.listen, args=[{"published": self._refresh}, self._stop], daemon=True
        )
        self._listener.start()
        self._snapshots.prepare()
        with suppress(EmbeddingError):  # whoever asks in this model hears why it does not work
            card = wiring.card_of(self._settings)
            components.embedders.of(card.name, card.dimensions).embed_query("warm")

    def close(self) -> None:
        self._stop.set()
        self._listener.join()
        self._recorder.close()
        self._snapshots.close()
        self._costs.close()
        self._components.close()

    def tasks(self) -> Mapping[str, Callable[..., Any]]:
        return {
            routes.SEARCH: self.search,
            routes.SUBMIT: self.submit,
            routes.DELETE: self.delete,
            routes.JOB: self.job,
        }

    def search(self, **values: Any) -> dict[str, Any]:
        """Return ``hits``, ``version``, ``token``, ``took_ms``, ``explain``; or ``error``. See `SearchRequest`."""
        return _answered(lambda: self._search(search_request(values)))

    def submit(self, **values: Any) -> dict[str, Any]:
        """Return ``job_id``, ``accepted``, ``replaced`` and ``unchanged``, or ``error``. See `requests.SubmitRequest`.

        A message that is delivered twice is harmless: what was accepted before is unchanged then.
        """
        return _answered(lambda: self._submit(submit_request(values)))

    def delete(self, **values: Any) -> dict[str, Any]:
        """Return what was logged, or ``error``. See `requests.DeleteRequest`.

        A message that is delivered twice is harmless: what leaves already is counted as deleted then.
        """
        return _answered(lambda: self._delete(delete_request(values)))

    def job(self, **values: Any) -> dict[str, Any]:
        """Return how far a job is, and the ``token`` of what searches find of it; or ``error``. It waits for nothing.

        See `requests.JobRequest`.
        """
        return _answered(lambda: self._job(job_request(values)))

    def _search(self, asked: SearchRequest) -> dict[str, Any]:
        began = time.perf_counter()
        components = self._components
        collection, now = self._collection(asked.tenant, asked.collection), components.clock()
        wanted = chosen_reference(
            version=asked.version, tag=asked.tag, as_of=asked.as_of, now=now, min_token=asked.min_token
        )
        least = self._wanted_version(asked.min_token, collection)
        with self._place(collection, least):
            found = retrieve(
                billed_for_searches(components.embedders.of, self._costs, collection),
                self._snapshots,
                collection,
                text=asked.query,
                vector=asked.vector,
                k=asked.k,
                max_k=self._settings.search.max_k,
                filter=None if asked.filter is None else parse_filter(asked.filter),
                ef=asked.ef or min(MAX_EF, max(self._settings.search.ef, 2 * asked.k)),
                min_version=least,
                at=None if wanted is None else generation_at(components.catalog, collection.generation, wanted),
                timeout_s=asked.timeout_s,
                now=now if wanted is None or wanted.as_of is None else wanted.as_of,
                explain=asked.explain,
                others=lambda: up_to_date_generations(
                    components.catalog, collection.id, tenant=collection.tenant_id, now=now
                ),
                declared=self._declared,
            )
        if wanted is None:  # what was asked of a past version says little of the next
            self._recorder.note(collection.tenant_id, collection.id, text=asked.query, filter=asked.filter)
        return found.described(began=began)

    def _job(self, asked: JobRequest) -> dict[str, Any]:
        job = get_job(self._components.catalog, tenant=TenantId(asked.tenant), job_id=JobId(asked.job_id))
        return {
            "job_id": job.id,
            "collection": job.collection,
            "state": job.state,
            "documents": dict(job.documents),
            "unchanged": job.unchanged,
            "cost_usd": job.cost_usd,
            "budget_usd": job.budget_usd,
            "held_up": None if job.held_up is None else vars(job.held_up),
            "token": token_of(*job.token) if job.token else None,
        }

    def _submit(self, asked: SubmitRequest) -> dict[str, Any]:
        components, limits = self._components, self._settings.limits
        _check_size(asked, self._settings)
        collection = self._collection(asked.tenant, asked.collection)
        if asked.priority == "economy":
            check_economy(self._settings, collection.generation.model)
        accepted = accept(
            components.catalog,
            components.objects,
            tenant=collection.tenant_id,
            collection_id=collection.id,
            generation_id=collection.generation.id,
            documents=[document.submitted() for document in asked.documents],
            now=components.clock(),
            job_id=None if asked.job_id is None else JobId(asked.job_id),
            idempotency_key=asked.idempotency_key,
            terms=Terms(
                PRIORITIES.index(asked.priority),
                Amount(limits.max_backlog_documents, limits.max_backlog_bytes),
                budget_usd=asked.budget_usd,
            ),
        )
        components.notices.work_ready()
        return {
            "job_id": accepted.job_id,
            "accepted": accepted.accepted,
            "replaced": accepted.replaced,
            "unchanged": accepted.unchanged,
        }

    def _delete(self, asked: DeleteRequest) -> dict[str, Any]:
        components = self._components
        collection = self._collection(asked.tenant, asked.collection)
        filter_ = None if asked.filter is None else parse_filter(asked.filter)
        least = self._wanted_version(asked.min_token, collection)
        with self._place(collection, least):
            done = delete_documents(
                components.catalog,
                self._snapshots,
                collection,
                Meant(asked.ids, asked.sources, asked.if_versions, filter_),
                min_version=least,
                timeout_s=asked.timeout_s,
                dry_run=asked.dry_run,
                now=components.clock(),
            )
        if done.job_id is not None:
            components.notices.work_ready()
        return {
            "job_id": done.job_id,
            "deleted": done.deleted,
            "already_deleted": done.already_deleted,
            "not_found": done.not_found,
            "changed": done.changed,
        }

    def _place(self, collection: CollectionInfo, least: int) -> AbstractContextManager[None]:
        """Give a place for the time of the block to a request whose version is not published yet: it will wait."""
        return self._places.taken() if least > collection.generation.version else nullcontext()

    def _collection(self, tenant: str, name: str) -> CollectionInfo:
        return get_collection(self._components.catalog, tenant=TenantId(tenant), name=name, counted=False)

    def _wanted_version(self, token: str | None, collection: CollectionInfo) -> int:
        if token is None:
            return 0
        try:
            generation_id, version = read_token(token)
        except ValueError as error:
            raise InvalidRequest("min_token is not a token: take it from a job, a collection or a search") from error
        # Versions are numbered across the generations of a collection: a later one covers what an earlier one did.
        known = generation_id == collection.generation.id
        if not known and not is_generation_of(self._components.catalog, generation_id, collection.id):
            raise InvalidRequest("min_token belongs to another collection")
        return version

    def _refresh(self, _tenant: TenantId, generation_id: GenerationId, _version: int) -> None:
        self._snapshots.refresh(generation_id)


def _answered(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 the asker waits for an answer, whatever happened
        if (answer := refusal(error)) is not None:
            return answer
        log_failure(log, "A request could not be answered", error, extra={})
        return {"error": {"code": "internal", "message": "the search role failed; its log says where"}}


def _check_size(asked: SubmitRequest, settings: Settings) -> None:
    limits = settings.limits
    if len(asked.documents) > limits.max_documents_per_submission:
        raise InvalidRequest(
            f"{len(asked.documents)} documents in one message: send at most {limits.max_documents_per_submission}"
        )
    for document in asked.documents:
        size_bytes = len(document.text or "") + len(document.content_base64 or "") * 3 // 4
        if size_bytes > limits.max_document_bytes:
            raise InvalidRequest(
                f"document {document.source!r} has more than {limits.max_document_bytes:,} bytes: split it,"
                " or raise the setting limits.max_document_bytes"
            )
