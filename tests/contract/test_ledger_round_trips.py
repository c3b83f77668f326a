"""The database is asked in bulk: as often for many documents as for a few, whatever becomes of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.jobs import cancel_job
from penstock.storage.intake.dead import ids_of
from penstock.storage.intake.revivals import drop_documents, retry_documents
from penstock.storage.ledger.pruning import KEEP_S

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
    line.submit(*names)
    die_twice(line, names)


def die_twice(line: Line, names: Sequence[str]) -> None:
    """Let what is queued fail, retry it, let it fail again, and give it up."""
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


def overtake(line: Line, names: Sequence[str]) -> None:
    """Publish what is queued and what overtakes it, and forget what was overtaken when it is old."""
    line.run()
    line.submit(*names, text="other")
    line.run()
    line.now += 2 * KEEP_S
    assert ledger.prune(line.catalog, now=line.now).versions == len(names)


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
    assert_not_more_often(line, story, counts=(FEW, MANY))


@pytest.mark.parametrize("story", [die_twice, overtake])
def test_documents_of_many_jobs_take_no_more_round_trips_than_those_of_a_few(
    line, story: Callable[[Line, Sequence[str]], None]
):
    one_by_one = lambda names: [line.submit(name) for name in names]  # noqa: E731 said where it is used
    assert_not_more_often(line, story, counts=(4, 24), prepare=one_by_one)


def assert_not_more_often(
    line: Line,
    story: Callable[[Line, Sequence[str]], None],
    *,
    counts: tuple[int, int],
    prepare: Callable[[Sequence[str]], object] = lambda _names: None,
) -> None:
    asked: list[int] = []
    for count in counts:
        names = [f"{count}-{number}" for number in range(count)]
        prepare(names)
        seen: list[str] = []
        with counted(seen):
            story(line, names)
        asked.append(len(seen))
    assert asked[1] <= asked[0] + 2, asked  # which is far below one for each
