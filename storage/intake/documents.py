"""Accepts submitted documents: their bytes into one pack, their versions into the ledger, in one transaction.

From the moment accept() returns, a document is indexed or visibly failed, whatever dies. Nothing is parsed here.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.backlogs import Amount, count_came, read_backlog
from ..catalog.engine import Catalog
from ..catalog.sources import KnownDocument, hold_sources, read_sources
from ..catalog.sweeps import guard_of_tenant
from ..catalog.tables import NORMAL, versions
from ..catalog.tenants import hold_tenant
from ..errors import Unavailable
from ..grace import Lookout
from ..ids import CollectionId, DocumentId, GenerationId, JobId, TenantId, VersionId, new_id
from ..objects.store import ObjectStore
from .acceptance import Target, hold_collection, hold_job, raise_newest, record_job, supersede_queued
from .idempotency import SubmissionKey, read_answer, record_answer, submission_key, take_key
from .submissions import Candidate, Pack, SubmittedDocument, checked, write_pack

__all__ = ["Accepted", "AcceptedDocument", "SubmittedDocument", "accept"]


@dataclass(frozen=True)
class AcceptedDocument:
    """``version_id`` is None when the document was here already, unchanged; ``number`` is then the kept version's.

    ``replaces``: the document was here before, and had neither been deleted nor cancelled before it came.
    """

    source: str
    document_id: DocumentId
    version_id: VersionId | None
    number: int
    replaces: bool


@dataclass(frozen=True)
class Accepted:
    """What became of a submission. ``superseded`` counts older versions that were still queued and never will run.

    ``replaced``: how many of the accepted are new versions of documents that were here. ``replayed``: all this was told
    before, to a submission with the same idempotency key, and nothing was done now; ``documents`` is then empty.
    """

    job_id: JobId
    accepted: int
    replaced: int
    unchanged: int
    superseded: int
    documents: tuple[AcceptedDocument, ...] = ()
    replayed: bool = False

    def to_answer(self) -> dict[str, Any]:
        counts = ("job_id", "accepted", "replaced", "unchanged", "superseded")
        return {name: getattr(self, name) for name in counts}

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> "Accepted":
        return cls(**answer, replayed=True)


class _BytesLeftOut(Exception):
    """The pack lacks bytes: what looked unchanged was changed meanwhile, or the pack was collected."""


@dataclass(frozen=True)
class Terms:
    """On which terms something is accepted. ``priority``: a place in `PRIORITIES`, among what waits of the tenant.

    ``most_waiting``: what may wait of a tenant that has no limits of its own; None: it may be too much.
    ``webhook_url``: who is told whenever the job ends; checked by the caller. ``budget_usd``: what the whole job may
    cost; None: as it was, and of a new job whatever it costs.
    """

    priority: int = NORMAL
    most_waiting: Amount | None = None
    webhook_url: str | None = None
    budget_usd: float | None = None


def accept(
    catalog: Catalog,
    objects: ObjectStore,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    generation_id: GenerationId,
    documents: Sequence[SubmittedDocument],
    now: float,
    job_id: JobId | None = None,
    idempotency_key: str | None = None,
    terms: Terms = Terms(),
) -> Accepted:
    """Commit the submission; with ``job_id`` as a further part of that job. Submitting twice is harmless.

    With an ``idempotency_key`` of the tenant the second time changes nothing at all, and is told what the first was:
    it does not bring back what was replaced or deleted in between.

    A document whose newest version is in progress or indexed with the same bytes, title, metadata and times makes no
    new version. An older version that is still queued is superseded.

    Raises:
        InvalidName: a source is empty, too long or given twice. InvalidMetadata: names the field.
        NotFound: the tenant has no such collection, generation or job.
        Conflict: the job was cancelled, or belongs to another collection; or the tenant has no webhook secret.
        KeyReused: another submission had this idempotency key.
        BacklogFull, TooMuchAtOnce: too much of the tenant would wait; nothing was accepted.
        Unavailable: the catalog did not answer; nothing was accepted.
    """
    candidates = checked(documents)
    target = Target(tenant, collection_id, generation_id, now, terms.webhook_url, terms.budget_usd)
    key = None
    if idempotency_key is not None:
        key = submission_key(
            idempotency_key,
            tenant=tenant,
            collection_id=collection_id,
            job_id=job_id,
            candidates=candidates,
            webhook_url=terms.webhook_url,
        )
    with catalog.read() as connection:
        if key is not None and (answer := read_answer(connection, key)) is not None:
            return Accepted.from_answer(answer)
        known = read_sources(connection, collection_id, sources=[candidate.source for candidate in candidates])
        # What looks unchanged need not be written; the transaction decides again.
        unchanged = {one.source for one in candidates if one.source in known and _holds(known[one.source], one)}
        if terms.most_waiting is not None:  # so that what is refused is not written either
            waiting = {source for source, one in known.items() if one.state == "queued"}  # what these replace goes
            came = _amount([one for one in candidates if one.source not in unchanged | waiting])
            read_backlog(connection, tenant, most=terms.most_waiting).check(came)
    for left_out in (unchanged, set[str]()):
        since = Lookout.begin(catalog, guard_of_tenant(tenant))
        pack = write_pack(objects, tenant, candidates, left_out=left_out)
        with suppress(_BytesLeftOut):
            return _record(
                catalog, objects, target, candidates, pack=pack, since=since, job_id=job_id, key=key, terms=terms
            )
    raise Unavailable("the bytes of this submission were collected twice while it was being recorded. Try again.")


def _amount(candidates: Sequence[Candidate]) -> Amount:
    return Amount(len(candidates), sum(len(candidate.submitted.data) for candidate in candidates))


def _record(
    catalog: Catalog,
    objects: ObjectStore,
    target: Target,
    candidates: Sequence[Candidate],
    *,
    pack: Pack,
    since: Lookout,
    job_id: JobId | None,
    key: SubmissionKey | None,
    terms: Terms,
) -> Accepted:
    sources = [candidate.source for candidate in candidates]
    with catalog.write("accept") as connection:
        hold_tenant(connection, target.tenant)  # first of all, and the only lock that the collector takes
        target = hold_collection(connection, target)
        if key is not None and not take_key(connection, target, key):
            if (answer := read_answer(connection, key)) is not None:
                return Accepted.from_answer(answer)
            raise Unavailable("the submission of this idempotency key was forgotten at this moment. Try again.")
        if job_id is not None:
            hold_job(connection, target, job_id)
        known = hold_sources(connection, target.collection_id, tenant=target.tenant, sources=sources, now=target.now)
        changed = [candidate for candidate in candidates if not _holds(known[candidate.source], candidate)]
        if any(candidate.source not in pack.offsets for candidate in changed):
            raise _BytesLeftOut
        # The collector cannot come any more (it waits for the tenant's row): what is here now stays.
        if changed and not since.nothing_left(connection) and not objects.exists(pack.name or ""):
            raise _BytesLeftOut
        unchanged = len(candidates) - len(changed)
        job = record_job(connection, target, job_id, opened=bool(changed), unchanged=unchanged)
        queued = [known[one.source].id for one in changed if known[one.source].state == "queued"]
        superseded = supersede_queued(connection, target, queued)
        made = _insert_versions(
            connection, target, changed, known=known, pack=pack, job_id=job, priority=terms.priority
        )
        told = _accepted(candidates, known, made)
        replaced = sum(one.version_id is not None and one.replaces for one in told)
        accepted = Accepted(job, len(changed), replaced, unchanged, superseded, told)
        if key is not None:
            record_answer(connection, key, accepted.to_answer())
        count_came(connection, target.tenant, _amount(changed), most=terms.most_waiting)
    return accepted


def _holds(known: KnownDocument, candidate: Candidate) -> bool:
    return known.holds(candidate.content_hash, candidate.metadata_hash)


def _insert_versions(
    connection: Connection,
    target: Target,
    changed: Sequence[Candidate],
    *,
    known: Mapping[str, KnownDocument],
    pack: Pack,
    job_id: JobId,
    priority: int,
) -> dict[str, VersionId]:
    """Insert one version per changed document, their ids in the order of submission. Returns the ids by source."""
    shared = {
        "tenant_id": target.tenant,
        "collection_id": target.collection_id,
        "generation_id": target.generation_id,
        "job_id": job_id,
        "state": "queued",
        "priority": priority,
        "pack": pack.name,
        "created_at": target.now,
    }
    made = sorted(VersionId(new_id("ver")) for _ in changed)
    raise_newest(connection, target, [known[one.source].id for one in changed])
    rows = [
        {"id": new, **shared, **_version(one, known[one.source]), "pack_offset": pack.offsets[one.source]}
        for new, one in zip(made, changed, strict=True)
    ]
    if rows:
        connection.execute(sa.insert(versions), rows)
    return {one.source: new for new, one in zip(made, changed, strict=True)}


def _version(candidate: Candidate, known: KnownDocument) -> dict[str, Any]:
    submitted = candidate.submitted
    return {
        "document_id": known.id,
        "number": known.highest + 1,
        "filename": submitted.filename,
        "media_type": submitted.media_type,
        "title": submitted.title,
        "metadata": dict(submitted.metadata),
        "event_time": submitted.event_time,
        "expires_at": submitted.expires_at,
        "content_hash": candidate.content_hash,
        "metadata_hash": candidate.metadata_hash,
        "size_bytes": len(submitted.data),
    }


def _accepted(
    candidates: Collection[Candidate], known: Mapping[str, KnownDocument], made: Mapping[str, VersionId]
) -> tuple[AcceptedDocument, ...]:
    return tuple(
        AcceptedDocument(
            source=one.source,
            document_id=known[one.source].id,
            version_id=made.get(one.source),
            number=known[one.source].highest + 1 if one.source in made else known[one.source].number,
            replaces=known[one.source].is_here,
        )
        for one in candidates
    )
