"""Whatever fails, tears or dies while expired documents are taken out: they are there as before, or gone, whole.

What has not expired, and what is described anew until later, is served throughout. After each fault somebody else
does the same again, index and catalog agree, and the collector leaves nothing that no version names.
"""

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from penstock.storage.catalog.tables import batches
from penstock.storage.errors import StorageError
from penstock.storage.intake.documents import SubmittedDocument

from ..faults import PulledPlug, fail_after, fail_before, failing_statement, tear, torn_commit
from ..line_faults import NEVER, check_recovery, prepared, template_line
from ..served_line import ServedLine
from ..storage_samples import InterceptedObjects
from .test_publish_faults import fail_once_and_repeat

ENDS_AT, LATER = 50_000.0, 2e11
BEFORE = {"a": ["apples", "more apples"], "b": ["beeches"], "c": ["cedars"], "d": ["dates"], "e": ["elms"]}
AFTER = {"b": ["beeches"], "c": ["cedars"], "e": ["elms"]}


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A collection in two segments: ``a`` and ``d`` have expired since; the end of ``e`` was put off."""
    folder = tmp_path_factory.mktemp("template")
    with template_line(folder) as line:
        for some in (("a", "b", "c"), ("d", "e")):
            line.accept([document(source) for source in some])
            line.run()
        line.update("e", values={"expires_at": LATER})
        line.run()
        assert line.served() == BEFORE
    return folder


def document(source: str) -> SubmittedDocument:
    ends_at = ENDS_AT if source in {"a", "d", "e"} else None
    return SubmittedDocument(source, f"{source}.txt", "\n".join(BEFORE[source]).encode(), expires_at=ends_at)


def expire(line: ServedLine) -> None:
    line.expire()


def expired(line: ServedLine) -> bool:
    served = line.served()
    assert served in (BEFORE, AFTER)
    assert line.indexed() == line.numbers(), "index and catalog say the same of every document"
    assert set(line.listed()) == set(served)
    return served == AFTER


def recover(line: ServedLine) -> None:
    check_recovery(line, expire, expired)
    with line.catalog.read() as connection:
        states = connection.scalars(sa.select(batches.c.state).where(batches.c.stage == "expire")).all()
    assert states == ["done"]


@pytest.mark.parametrize("fault", [fail_before, fail_after, tear])
def test_a_fault_in_any_operation_of_the_store_leaves_what_was(template, tmp_path, fault):
    for at in range(1, NEVER):
        with prepared(template, tmp_path / str(at)) as line:
            objects = InterceptedObjects(
                line.objects,
                lambda number, method, *args, at=at, true=line.objects: (
                    fault(true, method, *args) if number == at else None
                ),
            )
            try:
                expire(ServedLine(line.catalog, line.collection, objects=objects, now=line.now))
            except PulledPlug:
                assert not expired(line)
            else:
                assert expired(line)
                assert objects.count == at - 1 > 5
                return
            recover(line)


def test_a_store_that_repeats_any_write_changes_nothing(template, tmp_path):
    for at in range(1, NEVER):
        with prepared(template, tmp_path / str(at)) as line:
            objects = InterceptedObjects(
                line.objects,
                lambda number, method, *args, at=at, true=line.objects: (
                    fail_once_and_repeat(true, method, *args) if number == at and method in {"put", "delete"} else None
                ),
            )
            expire(ServedLine(line.catalog, line.collection, objects=objects, now=line.now))
            assert expired(line)
            if objects.count < at:
                return
            recover(line)


def test_a_fault_in_any_statement_of_the_catalog_is_as_before_or_done(template, tmp_path):
    for at in range(1, NEVER):
        with prepared(template, tmp_path / str(at)) as line:
            with failing_statement(line.catalog, at) as seen:
                try:
                    expire(line)
                except (StorageError, OperationalError):
                    failed = True
                else:
                    failed = False
            assert expired(line) != failed
            if seen() < at:
                assert not failed
                assert at > 10
                return
            recover(line)


@pytest.mark.parametrize("committed", [False, True])
def test_a_fault_at_the_commit_is_as_before_or_done(template, tmp_path, committed):
    with prepared(template, tmp_path / "one") as line:
        with torn_commit(line.catalog, {"publish"}, committed=committed), pytest.raises(PulledPlug):
            expire(line)
        assert expired(line) == committed
        recover(line)
