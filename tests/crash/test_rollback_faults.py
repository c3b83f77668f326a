"""Whatever fails, tears or dies while a collection is rolled back or forked: it is as before, or done, whole.

After each fault the same is done again by somebody else, index and catalog agree, and the collector leaves nothing
that no version names.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from penstock.storage.catalog.references import Reference
from penstock.storage.errors import NotFound, StorageError
from penstock.storage.publishing.forks import fork_collection

from ..faults import PulledPlug, fail_after, fail_before, failing_statement, tear, torn_commit
from ..line_faults import NEVER, check_recovery, prepared, template_line
from ..served_line import ServedLine, collection_of
from ..storage_samples import InterceptedObjects

FIRST = {"a": ["apples", "more apples"], "b": ["beeches"], "c": ["cedars"]}
LAST = {"a": ["apricots"], "c": ["cedars"], "d": ["dates"]}


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A collection at LAST, whose first version is FIRST, with a rollback to it that waits."""
    folder = tmp_path_factory.mktemp("template")
    with template_line(folder) as line:
        line.put(a="apples\nmore apples", b="beeches", c="cedars")
        line.put(a="apricots", d="dates")
        line.remove("b")
        line.run()
        line.ask_rollback(1)
    return folder


def roll_back(line: ServedLine) -> None:
    claim = line.claim_rollback()
    if claim is not None:
        line.carry_out(claim)


def fork(line: ServedLine) -> None:
    parent, first = collection_of(line), Reference(version=1)
    fork_collection(line.catalog, line.objects, parent=parent, reference=first, name="copy", clock=line.clock)


def rolled_back(line: ServedLine) -> bool:
    served = line.served()
    assert served in (FIRST, LAST)
    _agree(line)
    return served == FIRST


def forked(line: ServedLine) -> bool:
    assert line.served() == LAST
    _agree(line)
    try:
        copy = line.of("copy")
    except NotFound:
        return False
    assert copy.served() == FIRST
    _agree(copy)
    return True


def _agree(line: ServedLine) -> None:
    """Index and catalog say the same of every document."""
    assert line.indexed() == line.numbers()
    shown = {info.id: info.number for info in line.listed().values() if info.state == "indexed"}
    assert shown == line.numbers()


BOTH = pytest.mark.parametrize(("act", "done"), [(roll_back, rolled_back), (fork, forked)], ids=["rollback", "fork"])


@BOTH
@pytest.mark.parametrize("fault", [fail_before, fail_after, tear])
def test_a_fault_in_any_operation_of_the_store_leaves_what_was(template, tmp_path, act, done, fault):
    for at in range(1, NEVER):
        with prepared(template, tmp_path / str(at)) as line:
            true = line.objects

            def before(number, method, *args, at=at, true=true):
                return fault(true, method, *args) if number == at else None

            objects = InterceptedObjects(true, before)
            try:
                act(replace(line, objects=objects))
            except PulledPlug:
                assert not done(line)
            else:
                assert done(line)
                assert objects.count < at
                assert at > 5
                return
            check_recovery(line, act, done)


@BOTH
def test_a_fault_in_any_statement_of_the_catalog_is_as_before_or_done(template, tmp_path, act, done):
    for at in range(1, NEVER):
        with prepared(template, tmp_path / str(at)) as line:
            with failing_statement(line.catalog, at) as seen:
                try:
                    act(line)
                except (StorageError, OperationalError):
                    failed = True
                else:
                    failed = False
            # The answer of a fork is read after its commit: then it is done, and only its caller does not know.
            assert done(line) or failed
            if seen() < at:
                assert not failed
                assert at > 10
                return
            check_recovery(line, act, done)


@BOTH
@pytest.mark.parametrize("committed", [False, True])
def test_a_fault_at_the_commit_is_as_before_or_done(template, tmp_path, act, done, committed):
    with prepared(template, tmp_path / "one") as line:
        with torn_commit(line.catalog, {"publish", "fork"}, committed=committed), pytest.raises(PulledPlug):
            act(line)
        assert done(line) == committed
        check_recovery(line, act, done)
