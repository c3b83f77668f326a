"""Whatever fails, tears or dies while a collection is rolled back or forked: it is as before, or done, whole.

After each fault the same is done again by somebody else, index and catalog agree, and the collector leaves nothing
that no version names.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from penstock.storage.catalog.collections import get_collection
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.references import Reference
from penstock.storage.catalog.retention import Retention
from penstock.storage.catalog.tables import manifests
from penstock.storage.catalog.tenants import ensure_installation
from penstock.storage.collecting import collect_generations
from penstock.storage.errors import NotFound, StorageError
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing.forks import fork_collection
from penstock.storage.segments.manifests import read_manifest

from ..faults import PulledPlug, fail_after, fail_before, failing_statement, tear, torn_commit
from ..served_line import ServedLine, collection_of, new_served_line
from ..storage_samples import InterceptedObjects

NEVER = 10_000
FIRST = {"a": ["apples", "more apples"], "b": ["beeches"], "c": ["cedars"]}
LAST = {"a": ["apricots"], "c": ["cedars"], "d": ["dates"]}


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A collection at LAST, whose first version is FIRST, with a rollback to it that waits."""
    folder = tmp_path_factory.mktemp("template")
    catalog = Catalog.open(f"sqlite:///{folder}/catalog.db")
    migrate(catalog)
    ensure_installation(catalog, now=1.0, key="the key of these tests")
    line = new_served_line(catalog, folder)
    line.put(a="apples\nmore apples", b="beeches", c="cedars")
    line.put(a="apricots", d="dates")
    line.remove("b")
    line.run()
    line.ask_rollback(1)
    catalog.dispose()
    return folder


@contextmanager
def prepared(template: Path, folder: Path) -> Iterator[ServedLine]:
    shutil.copytree(template, folder)
    catalog = Catalog.open(f"sqlite:///{folder}/catalog.db")
    collection = get_collection(catalog, tenant="default", name="papers")
    yield ServedLine(catalog, collection, objects=LocalObjects(folder / "objects"), now=1e6)
    catalog.dispose()


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


Act = Callable[[ServedLine], None]
Done = Callable[[ServedLine], bool]
BOTH = pytest.mark.parametrize(("act", "done"), [(roll_back, rolled_back), (fork, forked)], ids=["rollback", "fork"])


def check_recovery(line: ServedLine, act: Act, done: Done) -> None:
    """Somebody else does it, once, and afterwards no object is left that no version names."""
    other = replace(line, owner="another", now=line.now + 1e10, epoch=None)
    if not done(other):
        act(other)
    assert done(other)
    act_again(other, act)
    assert done(other)
    at_once = {"retention": Retention(1, 0.0), "min_age_s": -1e12}
    collect_generations(line.catalog, other.objects, tenant=line.tenant, now=other.now, **at_once)
    with line.catalog.read() as connection:
        kept = connection.scalars(sa.select(manifests.c.name)).all()
    named = {file for name in kept for file in read_manifest(other.objects, name).file_names} | set(kept)
    assert {info.name for info in other.objects.list("tenants/default/generations/")} == named
    assert done(other)


def act_again(line: ServedLine, act: Act) -> None:
    """A message that is delivered twice finds nothing to do, or a name that is taken."""
    try:
        act(line)
    except StorageError as error:
        assert "exists already" in str(error)  # noqa: PT017


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
