"""Sweeps of collectors: who commits what leads to an object knows without a look whether it may have been deleted."""

import pytest

from penstock.storage import ledger
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.sweeps import (
    Guard,
    begin_sweep,
    end_sweep,
    ended_sweep,
    guard_of_generation,
    guard_of_tenant,
)
from penstock.storage.errors import Conflict
from penstock.storage.grace import Lookout
from penstock.storage.ids import GenerationId

from ..ledger_line import Line, new_line


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


@pytest.fixture(params=["tenant", "generation"])
def guard(line, request) -> Guard:
    of_generation = guard_of_generation(line.collection.generation.id)
    return guard_of_tenant(line.tenant) if request.param == "tenant" else of_generation


def swept(catalog: Catalog, guard: Guard, number: int) -> bool:
    with catalog.write() as connection:
        return end_sweep(connection, guard, number)


def die_in(catalog: Catalog, guard: Guard, number: int) -> None:
    with catalog.write() as connection:
        assert end_sweep(connection, guard, number)
        raise RuntimeError("dies here")


def is_quiet(catalog: Catalog, lookout: Lookout) -> bool:
    with catalog.write() as connection:
        return lookout.nothing_left(connection)


def test_whoever_looks_out_while_no_sweep_is_under_way_hears_of_the_next_one(line, guard):
    lookout = Lookout.begin(line.catalog, guard)
    assert is_quiet(line.catalog, lookout)
    number = begin_sweep(line.catalog, guard)
    assert not is_quiet(line.catalog, lookout)
    assert swept(line.catalog, guard, number)
    assert not is_quiet(line.catalog, lookout)
    assert is_quiet(line.catalog, Lookout.begin(line.catalog, guard))


def test_whoever_looks_out_during_a_sweep_has_to_look_whether_it_ends_or_dies(line, guard):
    number = begin_sweep(line.catalog, guard)
    lookout = Lookout.begin(line.catalog, guard)
    assert not is_quiet(line.catalog, lookout)
    with pytest.raises(RuntimeError):
        die_in(line.catalog, guard, number)
    assert not is_quiet(line.catalog, Lookout.begin(line.catalog, guard))
    assert swept(line.catalog, guard, number)
    assert not is_quiet(line.catalog, lookout)


def test_only_the_sweep_that_was_begun_last_may_delete(line, guard):
    """Else one could delete after another one has ended, and nobody would know that it is under way."""
    first, second = begin_sweep(line.catalog, guard), begin_sweep(line.catalog, guard)
    assert not swept(line.catalog, guard, first)
    with line.catalog.read() as connection:
        assert ended_sweep(connection, guard) is None
    assert swept(line.catalog, guard, second)
    assert not swept(line.catalog, guard, first)
    with line.catalog.read() as connection:
        assert ended_sweep(connection, guard) == second


def test_what_has_no_row_has_no_sweeps(line):
    guard = guard_of_generation(GenerationId("gen_gone"))
    assert begin_sweep(line.catalog, guard) is None
    assert not is_quiet(line.catalog, Lookout.begin(line.catalog, guard))


def test_a_merge_whose_file_goes_right_after_it_was_seen_is_refused(line, monkeypatch):
    """The collector had begun before the merger looked, and deletes between its look and its transaction."""
    guard = guard_of_generation(line.collection.generation.id)
    details = {"segments": ["s1", "s2"]}
    ledger.open_merge(line.catalog, generation_id=line.collection.generation.id, details=details, now=line.now)
    claim, built = line.claimed("merge"), line.merged()
    (name,) = [info.name for info in line.objects.list("") if "/segments/" in info.name]
    number, missing = begin_sweep(line.catalog, guard), line.objects.missing

    def seen(names):
        found = missing(names)
        if line.objects.exists(name):
            with line.catalog.write() as connection:
                assert end_sweep(connection, guard, number)
                line.objects.delete(name)
        return found

    monkeypatch.setattr(line.objects, "missing", seen)
    with pytest.raises(Conflict, match="was collected before anything named it"):
        ledger.finish_merge(line.catalog, line.objects, claim, details=built, now=line.now)
    assert line.batch_states("swap") == []
