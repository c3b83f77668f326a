"""The database is asked in bulk: as often for many documents as for a few, whatever becomes of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.jobs import cancel_job
from penstock.storage.intake.dead import ids_of
from penstock.storage.intake.revivals import drop_documents, retry_documents

from ..ledger_line import Line, new_line

FEW, MANY = 20, 240  # each of them one batch


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def publish(line: Line, names: Sequence[str]) -> None:
    line.submit(*names)
    line.run()


def replace(line: Line, names: Sequence[str]) -> None:
    publish(line, names)
    line.submit(*names, text="other")
    line.submit(*names, text="newest")  # supersedes what is queued
    line.run()


def remove(line: Line, names: Sequence[str]) -> None:
    publish(line, names)
    line.remove(*names)
    line.run()


def cancel(line: Line, names: Sequence[str]) -> None:
    publish(line, names)
    job_id = line.submit(*names, text="other").job_id
    line.form()
    cancel_job(line.catalog, tenant=line.tenant, job_id=job_id, now=line.now)


def die(line: Line, names: Sequence[str]) -> None:
    """Let all of them fail, retry them, let them fail again, and give them up."""
    line.submit(*names)
    line.form()
    for act in (retry_documents, drop_documents):
        for batch_id in line.send("chunk"):
            claim = line.claim(batch_id)
            assert claim is not None
            failed = [ledger.FailedDocument(version.id, "bad", "it is bad") for version in claim.versions]
            line.finish_chunking(claim, parts=[], failed=failed)
        place = {"tenant": line.tenant, "collection_id": line.collection.id}
        ids = list(ids_of(line.catalog, **place, sources=names).values())
        objects = [line.objects] if act is retry_documents else []
        of_generation = {"generation_id": line.collection.generation.id, "now": line.now}
        act(line.catalog, *objects, **place, **of_generation, document_ids=ids)
        line.form()


@contextmanager
def counted(seen: list[str]) -> Iterator[None]:
    def note(*given: object) -> None:
        seen.append(str(given[2]))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


@pytest.mark.parametrize("story", [publish, replace, remove, cancel, die])
def test_the_database_is_asked_as_often_for_many_documents_as_for_a_few(
    line, story: Callable[[Line, Sequence[str]], None]
):
    asked: list[int] = []
    for count in (FEW, MANY):
        seen: list[str] = []
        with counted(seen):
            story(line, [f"{count}-{number}" for number in range(count)])
        asked.append(len(seen))
    assert asked[1] <= asked[0] + 2, asked  # which is far below one for each
