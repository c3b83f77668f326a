"""What the client can do with documents and chunks: a part of `Penstock`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from .session import Session
from .transport import worded
from .uploads import Upload, form_part
from .wire import (
    ChunkDeletion,
    ChunksDeleted,
    Deleted,
    Deletion,
    Document,
    DocumentList,
    DocumentUpdate,
    Known,
    KnownQuery,
    NewDocument,
    Priority,
    SourceHash,
    Submission,
    Submitted,
    Updated,
    UploadForm,
)

LONGEST_DELETION_S = 600.0  # a filter may accept a million documents, each of which is logged before the answer


class Documents(Session):
    """The methods of `Penstock` about documents and chunks."""

    def submit(
        self,
        collection: str,
        documents: Sequence[NewDocument],
        *,
        job_id: str | None = None,
        idempotency_key: str | None = None,
        webhook_url: str | None = None,
        wait_s: float = 0,
        priority: Priority = "normal",
        budget_usd: float | None = None,
    ) -> Submitted:
        """Submit documents with their content in the request. All are accepted or none.

        ``webhook_url`` is told, signed, when the job ends.

        With ``wait_s`` (at most 30) the answer comes when searches find them; ``wait`` waits longer, for the job. A
        search with the answer's ``token`` as ``min_token`` finds them. ``idempotency_key``: the same submission under
        the same key is done once, however often it is sent; without one each call has a key of its own, for retries.
        ``priority``: before which other documents of this tenant they come. ``budget_usd``: what their job may cost in
        all; it waits for more where that is not enough.

        Raises:
            Busy: too much of the tenant waits: submit it again after ``retry_after_s``.
            TooLarge: it would not fit even where nothing waits: submit less at once.
        """
        with worded(Submission):
            submission = Submission(
                documents=list(documents),
                job_id=job_id,
                webhook_url=webhook_url,
                priority=priority,
                budget_usd=budget_usd,
            )
        body = submission.model_dump(exclude_defaults=True)
        return self._submit(collection, lambda _: {"json": body}, key=idempotency_key, wait_s=wait_s)

    def upload(
        self,
        collection: str,
        files: Sequence[Upload],
        *,
        job_id: str | None = None,
        idempotency_key: str | None = None,
        webhook_url: str | None = None,
        wait_s: float = 0,
        priority: Priority = "normal",
        budget_usd: float | None = None,
    ) -> Submitted:
        """Submit files, read while they are sent. All are accepted or none. The rest is as in `submit`."""
        with worded(UploadForm):
            described = UploadForm(
                documents=[file.fields() for file in files], priority=priority, budget_usd=budget_usd
            )
        form = {"documents": described.model_dump_json(include={"documents"})}
        if job_id is not None:
            form["job_id"] = job_id
        if webhook_url is not None:
            form["webhook_url"] = webhook_url
        if priority != "normal":
            form["priority"] = priority
        if budget_usd is not None:
            form["budget_usd"] = str(budget_usd)

        def content(opened: ExitStack) -> dict[str, Any]:
            return {"data": form, "files": [("files", form_part(file, opened=opened)) for file in files]}

        return self._submit(collection, content, key=idempotency_key, wait_s=wait_s)

    def _submit(
        self, collection: str, content: Callable[[ExitStack], Any], *, key: str | None, wait_s: float
    ) -> Submitted:
        path = self._path("collections", collection, "documents")
        return self._transport.submit(path, Submitted, key=key, wait_s=wait_s, content=content)

    def known(self, collection: str, hashes: Mapping[str, str]) -> set[str]:
        """Return the sources whose newest version has this ``content_hash``, is or will be indexed."""
        return set(self.compare(collection, hashes).known)

    def compare(self, collection: str, hashes: Mapping[str, str]) -> Known:
        """Return the sources whose newest version has this ``content_hash``: those ``known``, and those ``dead``.

        Submitting a dead one again tries it again, and most often in vain: see `retry_documents`.
        """
        with worded(KnownQuery):
            asked = KnownQuery(documents=[SourceHash(source=s, content_hash=h) for s, h in hashes.items()])
        path = self._path("collections", collection, "documents:known")
        return self._transport.ask(path, Known, body=asked.model_dump())

    def documents(
        self,
        collection: str,
        *,
        state: str | None = None,
        source: str | None = None,
        prefix: str = "",
        after: str | None = None,
        limit: int = 100,
    ) -> DocumentList:
        """Return one page; ``all_documents`` walks through the pages.

        ``source``: of the one document to look for; ``prefix``: what the sources of those to list begin with.
        """
        params = {"state": state, "source": source, "prefix": prefix or None, "after": after, "limit": limit}
        return self._transport.get(self._path("collections", collection, "documents"), DocumentList, params=params)

    def all_documents(self, collection: str, *, state: str | None = None, prefix: str = "") -> Iterator[Document]:
        page = self.documents(collection, state=state, prefix=prefix, limit=1000)
        yield from page.data
        while page.has_more:
            page = self.documents(collection, state=state, prefix=prefix, after=page.last_id, limit=1000)
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
        if_versions: Mapping[str, int] | None = None,
        filter: Mapping[str, Any] | str | None = None,  # noqa: A002 the wire's own word
        min_token: str | None = None,
        dry_run: bool = False,
        with_ids: bool = False,
    ) -> Deleted:
        """Delete the documents with these ids and these sources, or those that a filter accepts now, as one job.

        ``if_versions``: by source, of those whose newest version has another number by now the server leaves alone and
        counts as ``changed``. A filter is resolved when it is asked: what arrives later stays. ``dry_run`` only says
        what would be deleted, with ``with_ids`` all of it by id. When no answer comes, ask again: what was logged by
        then counts as deleted already.
        """
        with worded(Deletion):
            asked = Deletion(
                ids=None if ids is None else list(ids),
                sources=None if sources is None else list(sources),
                if_versions=None if if_versions is None else dict(if_versions),
                filter=dict(filter) if isinstance(filter, Mapping) else filter,
                min_token=min_token,
                dry_run=dry_run,
                with_ids=with_ids,
            )
        path = self._path("collections", collection, "documents:delete")
        body = asked.model_dump(exclude_defaults=True)
        return self._transport.post(path, Deleted, body=body, wait_s=LONGEST_DELETION_S)

    def update_document(self, collection: str, document_id: str, **changes: Any) -> Updated:
        """Change what a document says, without embedding its text again: see `wire.DocumentUpdate` for ``changes``."""
        with worded(DocumentUpdate):
            asked = DocumentUpdate(**changes)
        path = self._path("collections", collection, "documents", document_id)
        return self._transport.change("PATCH", path, Updated, body=asked.model_dump(exclude_unset=True))

    def delete_chunks(
        self, collection: str, chunk_ids: Sequence[int], *, min_token: str | None = None
    ) -> ChunksDeleted:
        """Delete chunks by the ids that searches give them; their documents stay."""
        with worded(ChunkDeletion):
            asked = ChunkDeletion(chunk_ids=list(chunk_ids), min_token=min_token)
        path = self._path("collections", collection, "chunks:delete")
        return self._transport.post(path, ChunksDeleted, body=asked.model_dump(exclude_defaults=True))
