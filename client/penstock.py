"""The client that applications use: one object per server and tenant. Holds no state but its connections."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from .errors import Busy, Invalid
from .snapshots import Snapshots
from .transport import LONGEST_POLL_S, Transport, worded
from .uploads import Upload, form_part
from .wire import (
    ChunkDeletion,
    Chunking,
    ChunksDeleted,
    Collection,
    CollectionList,
    Deleted,
    Deletion,
    Document,
    DocumentList,
    DocumentUpdate,
    IndexStats,
    Job,
    JobList,
    Known,
    KnownQuery,
    Metric,
    NewCollection,
    NewDocument,
    NewTenant,
    Quantization,
    SearchQuery,
    SearchResult,
    SourceHash,
    Status,
    Submission,
    Submitted,
    Tenant,
    TenantList,
    Updated,
    UploadForm,
    packed_vector,
)

LONGEST_DELETION_S = 600.0  # a filter may accept a million documents, each of which is logged before the answer


class Penstock(Snapshots):
    """One tenant of one Penstock server.

    Every method raises the errors of ``penstock.client.errors``. Safe to use from several threads.

    Args:
        base_url: for example ``http://127.0.0.1:7700``.
        api_key: the installation's key, which `penstock up` prints once.
        tenant: whose collections, documents and jobs all methods speak of.
        timeout_s: longest wait for an answer.
        transport: an httpx transport, for tests.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        tenant: str = "default",
        *,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.tenant = tenant
        self._transport = Transport(base_url, api_key=api_key, timeout_s=timeout_s, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # Tenants and collections

    def tenants(self) -> list[Tenant]:
        return self._transport.get("/v1/tenants", TenantList).data

    def create_tenant(self, name: str) -> Tenant:
        """Make a tenant, or return the one of that name."""
        with worded():
            new = NewTenant(name=name)
        return self._transport.post("/v1/tenants", Tenant, body=new.model_dump())

    def collections(self) -> list[Collection]:
        return self._transport.get(self._path("collections"), CollectionList).data

    def collection(self, name: str) -> Collection:
        return self._transport.get(self._path("collections", name), Collection)

    def create_collection(
        self,
        name: str,
        *,
        model: str | None = None,
        chunking: Chunking | None = None,
        metric: Metric | None = None,
        quantization: Quantization | None = None,
    ) -> Collection:
        """Make a collection, or return the one of that name when it is configured so; else ``Conflict``."""
        with worded():
            new = NewCollection(name=name, model=model, chunking=chunking, metric=metric, quantization=quantization)
        return self._transport.post(self._path("collections"), Collection, body=new.model_dump(exclude_none=True))

    def delete_collection(self, name: str) -> None:
        self._transport.delete(self._path("collections", name))

    # Documents

    def submit(self, collection: str, documents: Sequence[NewDocument], *, job_id: str | None = None) -> Submitted:
        """Submit documents with their content in the request. All are accepted or none."""
        with worded():
            submission = Submission(documents=list(documents), job_id=job_id)
        body = submission.model_dump(exclude_defaults=True)
        return self._transport.post(self._path("collections", collection, "documents"), Submitted, body=body)

    def upload(self, collection: str, files: Sequence[Upload], *, job_id: str | None = None) -> Submitted:
        """Submit files, read while they are sent. All are accepted or none."""
        with worded():
            described = UploadForm(documents=[file.fields() for file in files])
        form = {"documents": described.model_dump_json(include={"documents"})}
        if job_id is not None:
            form["job_id"] = job_id
        with ExitStack() as opened:
            parts = [("files", form_part(file, opened=opened)) for file in files]
            path = self._path("collections", collection, "documents")
            return self._transport.upload(path, Submitted, form=form, files=parts)

    def known(self, collection: str, hashes: Mapping[str, str]) -> set[str]:
        """Return the sources whose newest version has this ``content_hash``, is or will be indexed."""
        with worded():
            asked = KnownQuery(documents=[SourceHash(source=s, content_hash=h) for s, h in hashes.items()])
        path = self._path("collections", collection, "documents:known")
        return set(self._transport.ask(path, Known, body=asked.model_dump()).known)

    def documents(
        self,
        collection: str,
        *,
        state: str | None = None,
        source: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> DocumentList:
        """Return one page; ``all_documents`` walks through the pages. ``source``: of the one document to look for."""
        params = {"state": state, "source": source, "after": after, "limit": limit}
        return self._transport.get(self._path("collections", collection, "documents"), DocumentList, params=params)

    def all_documents(self, collection: str, *, state: str | None = None) -> Iterator[Document]:
        page = self.documents(collection, state=state, limit=1000)
        yield from page.data
        while page.has_more:
            page = self.documents(collection, state=state, after=page.last_id, limit=1000)
            yield from page.data

    def document(self, collection: str, document_id: str) -> Document:
        return self._transport.get(self._path("collections", collection, "documents", document_id), Document)

    def delete_document(self, collection: str, document_id: str) -> Deleted:
        """Delete one document. It leaves a little later: ``wait`` for the job. Twice is harmless."""
        return self._transport.change(
            "DELETE", self._path("collections", collection, "documents", document_id), Deleted
        )

    def delete_documents(
        self,
        collection: str,
        *,
        ids: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        filter: Mapping[str, Any] | str | None = None,  # noqa: A002 the wire's own word
        min_token: str | None = None,
        dry_run: bool = False,
    ) -> Deleted:
        """Delete the documents with these ids, or these sources, or that a filter accepts now, as one job.

        A filter is resolved when it is asked: what arrives later stays. ``dry_run`` only says what would be deleted.
        When no answer comes, ask again: what was logged by then counts as deleted already.
        """
        with worded():
            asked = Deletion(
                ids=None if ids is None else list(ids),
                sources=None if sources is None else list(sources),
                filter=dict(filter) if isinstance(filter, Mapping) else filter,
                min_token=min_token,
                dry_run=dry_run,
            )
        path = self._path("collections", collection, "documents:delete")
        body = asked.model_dump(exclude_defaults=True)
        return self._transport.post(path, Deleted, body=body, wait_s=LONGEST_DELETION_S)

    def update_document(self, collection: str, document_id: str, **changes: Any) -> Updated:
        """Change what a document says, without embedding its text again: see `wire.DocumentUpdate` for ``changes``."""
        with worded():
            asked = DocumentUpdate(**changes)
        path = self._path("collections", collection, "documents", document_id)
        return self._transport.change("PATCH", path, Updated, body=asked.model_dump(exclude_unset=True))

    def delete_chunks(
        self, collection: str, chunk_ids: Sequence[int], *, min_token: str | None = None
    ) -> ChunksDeleted:
        """Delete chunks by the ids that searches give them; their documents stay."""
        with worded():
            asked = ChunkDeletion(chunk_ids=list(chunk_ids), min_token=min_token)
        path = self._path("collections", collection, "chunks:delete")
        return self._transport.post(path, ChunksDeleted, body=asked.model_dump(exclude_defaults=True))

    # Jobs

    def jobs(self, *, after: str | None = None, limit: int = 20) -> JobList:
        return self._transport.get(self._path("jobs"), JobList, params={"after": after, "limit": limit})

    def job(self, job_id: str, *, wait_s: float = 0) -> Job:
        """Return a job as soon as it is not running any more, at the latest after ``wait_s`` (at most 30)."""
        wait_s = min(wait_s, LONGEST_POLL_S)
        return self._transport.get(self._path("jobs", job_id), Job, params={"wait": wait_s or None}, wait_s=wait_s)

    def cancel(self, job_id: str) -> Job:
        """Cancel what is not indexed yet."""
        return self._transport.post(self._path("jobs", job_id, "cancel"), Job)

    def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
        every_s: float = 0.5,
    ) -> Job:
        """Wait until a job is done or cancelled, telling ``on_progress`` about every ``every_s``.

        Raises:
            Busy: it is still running after ``timeout_s``.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = every_s if deadline is None else min(every_s, deadline - time.monotonic())
            job = self.job(job_id, wait_s=max(0.0, left_s))
            if on_progress is not None:
                on_progress(job)
            if job.state != "running":
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise Busy(f"job {job_id} is still running after {timeout_s:g} s", code="still_running")

    # Searching

    def search(  # noqa: PLR0913  (the parts of a search are what they are)
        self,
        collection: str,
        query: str | None = None,
        *,
        vector: Sequence[float] | None = None,
        k: int = 10,
        filter: Mapping[str, Any] | str | None = None,  # noqa: A002 the wire's own word
        ef: int | None = None,
        min_token: str | None = None,
        version: int | None = None,
        tag: str | None = None,
        as_of: float | str | None = None,
        explain: bool = False,
    ) -> SearchResult:
        """Search by text or by vector. ``min_token`` of a job waits until its documents are searchable.

        By default the newest version is searched; ``version``, ``tag`` or ``as_of`` (seconds since 1970 or ISO 8601)
        choose another, and are refused with ``NotFound`` when that is not kept any more.
        """
        with worded():
            asked = SearchQuery(
                query=query,
                vector=None if vector is None else packed_vector(vector),
                k=k,
                filter=dict(filter) if isinstance(filter, Mapping) else filter,
                ef=ef,
                min_token=min_token,
                version=version,
                tag=tag,
                as_of=as_of,
                explain=explain,
            )
        path = self._path("collections", collection, "search")
        return self._transport.ask(path, SearchResult, body=asked.model_dump(exclude_defaults=True))

    def index_stats(self, collection: str, *, probe: int = 0) -> IndexStats:
        """Return the figures of a collection's index. ``probe``: how many rows to search for, which takes seconds."""
        path = self._path("collections", collection, "index")
        return self._transport.get(path, IndexStats, params={"probe": probe})

    # The installation

    def status(self) -> Status:
        return self._transport.get("/v1/status", Status)

    def _path(self, *parts: str) -> str:
        for part in (self.tenant, *parts):
            if part in ("", ".", ".."):  # quoting does not keep these in their place
                raise Invalid(f"{part!r} is neither a name nor an id", code="invalid_id")
        return "/".join(["/v1/tenants", quote(self.tenant, safe=""), *(quote(part, safe=":") for part in parts)])
