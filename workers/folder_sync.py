"""A schedule that keeps a collection, or what is below a prefix of it, equal to a folder of this machine.

The same plan as `penstock sync`: what is new is added, what changed is replaced, what is gone is deleted. Each run
looks anew; a repeated one finds done what the one before did, and under the same keys accepts nothing twice. Before
anything is deleted everything is sent: what was only moved is never gone.
"""

import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from penstock.pipeline.requests import in_requests
from penstock.storage.catalog.backlogs import Amount
from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.documents import known, list_documents
from penstock.storage.catalog.tables import PRIORITIES
from penstock.storage.catalog.values import slices
from penstock.storage.errors import BacklogFull, InvalidName, TooMuchAtOnce
from penstock.storage.folders import (
    Found,
    Skipped,
    SyncPlan,
    Walk,
    begun,
    below,
    content_hash,
    plan_for,
    still_gone,
    walk,
)
from penstock.storage.ids import DocumentId, JobId
from penstock.storage.intake.documents import SubmittedDocument, Terms, accept
from penstock.storage.intake.removals import remove_documents
from penstock.storage.schedules.actions import leads_out

from .errors import RunFailed, RunWaits
from .run_work import RunWork

ASKED_AT_ONCE = 1_000
REQUEST_DOCUMENTS = 200
REQUEST_BYTES = 8 << 20
DELETED_AT_ONCE = 10_000
PATIENCE_S = 60.0  # for room in the backlog; then the process is let go for as long
TOLD = 5  # of the files that were skipped


def sync_folder(work: RunWork) -> None:
    """Do one run. ``progress``: how many documents were added, updated, deleted …, and the job they are in."""
    folder, prefix = Path(work.run.options["folder"]), work.run.options.get("prefix")
    collection = work.collection()
    skipped: list[Skipped] = []
    plan = _planned(work, collection, folder, prefix, skipped)
    if plan.deletes_much and not work.run.options.get("delete_much"):
        raise RunFailed(
            f"it would delete {len(plan.delete):,} of {plan.here:,} documents, which nobody was asked about: nothing "
            f"was changed. Look at {folder} on the machine that runs maintenance; if it is right, run "
            "`penstock sync --yes` once, or make the schedule with --delete-much"
        )
    work.progress = {"added": 0, "updated": 0, "deleted": 0, "left": 0, **work.progress}
    work.progress |= {"unchanged": plan.unchanged, "spared": len(plan.spared)}
    _send(work, collection, plan, skipped)
    _delete(work, collection, plan, folder, prefix)
    work.progress["skipped"] = len(skipped)
    work.progress["skipped_files"] = [f"{one.path}: {one.reason}" for one in skipped[:TOLD]]


def _planned(
    work: RunWork, collection: CollectionInfo, folder: Path, prefix: str | None, skipped: list[Skipped]
) -> SyncPlan:
    found = _walked(work, folder, prefix)
    skipped += found.skipped
    unread = list(found.skipped)
    here = _documents_below(work, collection, below(begun(folder, prefix)))
    new, unchanged = _compared(work, collection, found, skipped)
    return plan_for(found, new=new, unread=unread, here=here, unchanged=unchanged)


def _walked(work: RunWork, folder: Path, prefix: str | None) -> Walk:
    """Return what is in the folder that schedules may read. Raises RunFailed: nothing can be said of it."""
    roots = work.components.settings.schedules.sync_roots
    if leads_out(folder, roots):
        raise RunFailed(f"schedules may not read {folder}: it lies below none of schedules.sync_roots any more")
    if not folder.is_dir():
        raise RunFailed(f"{folder} is no folder on the machine that runs maintenance: nothing was changed")
    try:
        found, source = walk([folder], prefix=prefix), begun(folder, prefix)
    except InvalidName as error:
        raise RunFailed(str(error)) from error
    if unread := next((one for one in found.skipped if one.source == source), None):
        raise RunFailed(f"{folder} cannot be read: {unread.reason}; nothing was changed")
    inside: list[Found] = []
    for file in found.found:
        if leads_out(file.path, roots):
            found.skipped.append(Skipped(file.path, "a link that leads out of schedules.sync_roots", file.source))
        else:
            inside.append(file)
    return Walk(inside, found.skipped)


def _documents_below(work: RunWork, collection: CollectionInfo, prefix: str) -> dict[str, int]:
    """Return the versions of the documents below a prefix that are not leaving, by source."""
    here: dict[str, int] = {}
    after: DocumentId | None = None
    while True:
        work.go_on()
        page = list_documents(
            work.components.catalog,
            tenant=collection.tenant_id,
            collection_id=collection.id,
            prefix=prefix,
            after=after,
            limit=ASKED_AT_ONCE,
        )
        here |= {one.source: one.number for one in page if one.state != "deleting"}
        if len(page) < ASKED_AT_ONCE:
            return here
        after = page[-1].id


def _compared(
    work: RunWork, collection: CollectionInfo, found: Walk, skipped: list[Skipped]
) -> tuple[list[Found], int]:
    """Return the files whose content is not here, and how many are here as they are.

    One that failed with just this content would fail again: it is left until its file changes, or it is retried.
    """
    new: list[Found] = []
    unchanged, dead = 0, 0
    for group in slices(found.found, ASKED_AT_ONCE):
        hashes: dict[str, bytes] = {}
        for file in group:
            work.go_on()
            try:
                hashes[file.source] = bytes.fromhex(content_hash(file.path))
            except OSError as error:
                skipped.append(_unreadable(file, error))
        owner, catalog = collection.tenant_id, work.components.catalog
        here = known(catalog, tenant=owner, collection_id=collection.id, hashes=hashes)
        unchanged, dead = unchanged + len(here.kept), dead + len(here.dead)
        new += [file for file in group if file.source in hashes and file.source not in here.kept | here.dead]
    work.progress["failed_before"] = dead
    return new, unchanged


def _send(work: RunWork, collection: CollectionInfo, plan: SyncPlan, skipped: list[Skipped]) -> None:
    most_bytes = work.components.settings.limits.max_document_bytes

    def held_bytes(file: Found) -> int:
        return min(file.size_bytes, most_bytes + 1)  # of a file above the bound no more is read

    for request in in_requests(plan.sent, held_bytes, most=REQUEST_DOCUMENTS, most_size=REQUEST_BYTES):
        work.go_on()
        documents = _read(request, most_bytes=most_bytes, skipped=skipped)
        if documents:
            _accept(work, collection, documents, skipped)
            work.save()


def _accept(
    work: RunWork, collection: CollectionInfo, documents: Sequence[SubmittedDocument], skipped: list[Skipped]
) -> None:
    """Hand these in as a part of the run's job, as soon as there is room for them."""
    components, limits = work.components, work.components.settings.limits
    most = Amount(limits.max_backlog_documents, limits.max_backlog_bytes)
    began = time.monotonic()
    while True:
        try:
            accepted = accept(
                components.catalog,
                components.objects,
                tenant=collection.tenant_id,
                collection_id=collection.id,
                generation_id=collection.generation.id,
                documents=documents,
                now=components.clock(),
                job_id=_job(work),
                idempotency_key=_key(work, documents),
                terms=Terms(PRIORITIES.index("normal"), most),
            )
        except TooMuchAtOnce as error:
            skipped += [Skipped(Path(one.source), str(error), one.source) for one in documents]
            return
        except BacklogFull as error:
            _wait_for_room(work, error, waited_s=time.monotonic() - began)
        else:
            break
    work.progress["job_id"] = accepted.job_id
    _count(work, added=accepted.accepted - accepted.replaced, updated=accepted.replaced)
    components.notices.work_ready()


def _wait_for_room(work: RunWork, error: BacklogFull, *, waited_s: float) -> None:
    if waited_s > PATIENCE_S:
        raise RunWaits(str(error), after_s=PATIENCE_S)
    until = time.monotonic() + min(PATIENCE_S, error.retry_after_s)
    while time.monotonic() < until:
        work.go_on()
        time.sleep(0.2)


def _delete(work: RunWork, collection: CollectionInfo, plan: SyncPlan, folder: Path, prefix: str | None) -> None:
    """Look again what is not in the folder, and delete those of it that are in the collection as they were planned."""
    if not plan.delete:
        return
    gone = still_gone(plan, _walked(work, folder, prefix))
    left = len(plan.delete) - len(gone)
    for some in slices(gone, DELETED_AT_ONCE):
        work.go_on()
        removed = remove_documents(
            work.components.catalog,
            tenant=collection.tenant_id,
            collection_id=collection.id,
            generation_id=collection.generation.id,
            sources=some,
            if_numbers={source: plan.versions[source] for source in some},
            now=work.components.clock(),
            job_id=_job(work),
        )
        work.progress["job_id"] = removed.job_id
        left += removed.changed
        _count(work, deleted=removed.deleted)
        work.save()
        work.components.notices.work_ready()
    work.progress["left"] = left


def _job(work: RunWork) -> JobId | None:
    found = work.progress.get("job_id")
    return None if found is None else JobId(str(found))


def _key(work: RunWork, documents: Sequence[SubmittedDocument]) -> str:
    """Return the idempotency key of what a run hands in: the same again, in another attempt, is told and not done.

    The first attempt may have died before it could tell its job; so the job, which has a part in what was submitted,
    has one in the key.
    """
    digest = blake2b(f"{_job(work)}".encode(), digest_size=16)
    for one in documents:
        digest.update(blake2b(one.source.encode()).digest() + blake2b(one.data).digest())
    return f"{work.run.id}:{digest.hexdigest()}"


def _count(work: RunWork, **more: int) -> None:
    for name, number in more.items():
        work.progress[name] = int(work.progress.get(name, 0)) + number


def _read(files: Sequence[Found], *, most_bytes: int, skipped: list[Skipped]) -> list[SubmittedDocument]:
    documents = []
    for file in files:
        try:
            with file.path.open("rb") as opened:
                data = opened.read(most_bytes + 1)
        except OSError as error:
            skipped.append(_unreadable(file, error))
            continue
        if len(data) > most_bytes:
            skipped.append(Skipped(file.path, f"larger than limits.max_document_bytes ({most_bytes:,})", file.source))
        else:
            documents.append(SubmittedDocument(file.source, file.path.name, data))
    return documents


def _unreadable(file: Found, error: OSError) -> Skipped:
    return Skipped(file.path, (error.strerror or str(error)).lower(), file.source)
