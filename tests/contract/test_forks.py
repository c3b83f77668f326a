"""A fork begins with a version of its parent and shares nothing with it that either of them could change."""

import threading
from functools import partial

import pytest
import sqlalchemy as sa

from penstock.storage.catalog import copies
from penstock.storage.catalog.collections import create_collection, delete_collection
from penstock.storage.catalog.generations import generation_info
from penstock.storage.catalog.jobs import list_jobs
from penstock.storage.catalog.manifests import list_manifests
from penstock.storage.catalog.references import CURRENT, Reference
from penstock.storage.catalog.retention import Retention, expire_versions
from penstock.storage.catalog.tables import collections, documents, versions
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.catalog.values import batched
from penstock.storage.collecting import collect_generations
from penstock.storage.errors import AlreadyExists, InvalidName, LimitReached, NotFound, NotKept
from penstock.storage.publishing import forks
from penstock.storage.publishing.forks import fork_collection
from penstock.storage.segments.manifests import read_manifest

from ..ledger_line import rows
from ..served_line import ServedLine, collection_of, new_served_line


@pytest.fixture
def line(catalog, tmp_path) -> ServedLine:
    return new_served_line(catalog, tmp_path)


def fork(line: ServedLine, name: str = "copy", reference: Reference = CURRENT, **options: int) -> ServedLine:
    parent = collection_of(line)
    made = fork_collection(
        line.catalog, line.objects, parent=parent, reference=reference, name=name, clock=line.clock, **options
    )
    assert (made.name, made.tenant_id, made.generation.version) == (name, line.tenant, 1)
    return line.of(name)


def files(line: ServedLine) -> list[str]:
    return sorted(info.name for info in line.objects.list("tenants/") if "/manifests/" not in info.name)


def test_a_fork_serves_what_its_parent_does_without_a_copy_of_any_file(line):
    line.put(a="apples\nmore apples", b="beeches")
    line.put(a="apricots", c="cedars")
    before = files(line)
    copy = fork(line)
    assert files(line) == before
    assert copy.served() == line.served() == {"a": ["apricots"], "b": ["beeches"], "c": ["cedars"]}
    assert copy.indexed() == copy.numbers() == line.indexed()
    shown, theirs = copy.listed(), line.listed()
    assert {source: info.id for source, info in shown.items()} == {source: info.id for source, info in theirs.items()}
    assert {info.state for info in shown.values()} == {"indexed"}
    assert {info.indexed_version for info in shown.values()} == {1}
    assert shown["a"].number == 2
    (job,) = [one for one in list_jobs(line.catalog, tenant=line.tenant) if one.collection == "copy"]
    assert (job.state, job.documents) == ("done", {"indexed": 3})
    with line.catalog.read() as connection:
        (first,) = list_manifests(connection, copy.collection.generation.id, limit=10)
    assert (first.origin.operation, first.origin.version) == ("fork", 2)
    assert first.origin.generation_id == line.collection.generation.id


def test_a_fork_of_an_old_version_has_the_documents_of_then(line):
    line.put(a="apples", b="beeches", c="cedars")
    line.put(a="apricots", d="dates")
    line.put(a="avocados", b="birches")
    old = fork(line, "old", Reference(version=1))
    assert old.served() == {"a": ["apples"], "b": ["beeches"], "c": ["cedars"]}
    assert old.indexed() == old.numbers()
    assert {source: info.chunk_count for source, info in old.listed().items()} == {"a": 1, "b": 1, "c": 1}
    between = fork(line, "between", Reference(version=2))
    assert between.served() == {"a": ["apricots"], "b": ["beeches"], "c": ["cedars"], "d": ["dates"]}
    assert between.indexed() == between.numbers()
    assert {source: info.number for source, info in between.listed().items()} == {"a": 2, "b": 1, "c": 1, "d": 1}


@pytest.mark.parametrize("at_once", [1, 3])
def test_what_differs_is_copied_slice_by_slice(line, monkeypatch, at_once):
    monkeypatch.setattr(copies, "batched", partial(batched, size=at_once))
    line.put(**{f"d{i}": f"text {i}" for i in range(7)})
    line.put(**{f"d{i}": f"other {i}" for i in range(3, 9)})
    line.remove("d0")
    line.run()
    copy = fork(line, reference=Reference(version=1))
    assert copy.served() == {f"d{i}": [f"text {i}"] for i in range(7)}
    assert copy.indexed() == copy.numbers()


def test_no_statement_of_a_fork_looks_at_every_document(line):
    if line.catalog.dialect != "sqlite":
        pytest.skip("the planner of PostgreSQL chooses by the sizes of tables, which are small here")
    line.put(**{f"d{i}": f"text {i}" for i in range(7)})
    line.put(**{f"d{i}": f"other {i}" for i in range(3, 9)})
    statements: list[tuple[str, object]] = []

    def note(_connection, _cursor, statement, parameters, _context, many) -> None:
        statements.append((statement, parameters[0] if many else parameters))

    sa.event.listen(line.catalog._writer, "before_cursor_execute", note)
    fork(line, reference=Reference(version=1))
    sa.event.remove(line.catalog._writer, "before_cursor_execute", note)
    assert len(statements) > 10
    with line.catalog.read() as connection:
        for statement, parameters in statements:
            if not statement.startswith(("INSERT", "SELECT", "UPDATE", "DELETE")):
                continue
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            scans = [row.detail for row in plan if row.detail in {"SCAN versions", "SCAN documents"}]
            assert scans == [], statement


def test_a_fork_of_an_old_version_has_the_chunks_that_were_deleted_since(line):
    line.put(a="apples", b="beeches")
    line.trim("a", 0)
    line.run()
    copy = fork(line, reference=Reference(version=1))
    assert copy.served() == {"a": ["apples"], "b": ["beeches"]}
    assert {source: info.chunk_count for source, info in copy.listed().items()} == {"a": 1, "b": 1}
    assert line.served() == {"b": ["beeches"]}


def test_who_asks_twice_learns_what_the_first_time_made(line, monkeypatch):
    line.put(a="apples")
    line.put(a="apricots")
    copy = fork(line, reference=Reference(version=1))
    compared: list[object] = []
    monkeypatch.setattr(forks, "_look", compared.append)
    told = "'copy' exists already, a fork of version 1 of 'papers': if you asked for just that and got no answer"
    with pytest.raises(AlreadyExists, match=told):
        fork(line, reference=Reference(version=1))
    with pytest.raises(AlreadyExists, match="'papers' exists already: choose another name"):
        fork(line, "papers")
    assert compared == []  # it need not be looked at for that
    delete_collection(line.catalog, tenant=line.tenant, name="papers")
    with pytest.raises(AlreadyExists, match="a fork of version 1 of a collection since deleted"):
        fork(copy)
    copy.put(b="beeches")
    with copy.catalog.write() as connection:
        expire_versions(connection, tenant=line.tenant, now=1e12, retention=Retention(1, 0.0))
    with pytest.raises(AlreadyExists, match="'copy' exists already: choose another name"):
        fork(copy)


def test_a_name_that_is_taken_while_the_fork_is_made_is_told_likewise(line, monkeypatch):
    line.put(a="apples")
    look, before = forks._look, {info.name for info in line.objects.list("tenants/")}

    def taken_meanwhile(*args):
        found = look(*args)
        monkeypatch.setattr(forks, "_look", look)
        fork(line)
        return found

    monkeypatch.setattr(forks, "_look", taken_meanwhile)
    with pytest.raises(AlreadyExists, match="a fork of version 1 of 'papers'"):
        fork(line)
    assert len({info.name for info in line.objects.list("tenants/")} - before) == 1  # the manifest of the one made


def test_the_name_of_another_tenant_s_collection_is_free(line):
    line.put(a="apples")
    other = create_tenant(line.catalog, "other", now=1.0)
    options = {"model": "hash", "dimensions": 8, "metric": "cosine", "chunking": {}, "shards": 1, "now": 1.0}
    create_collection(line.catalog, tenant=other, name="copy", **options)
    fork(line)


def test_what_happens_to_one_does_not_happen_to_the_other(line):
    line.put(a="apples", b="beeches")
    copy = fork(line)
    before = copy.served(), copy.listed()
    line.put(a="apricots", c="cedars")
    assert (copy.served(), copy.listed()) == before
    copy.put(b="birches", c="chestnuts")
    assert line.served() == {"a": ["apricots"], "b": ["beeches"], "c": ["cedars"]}
    assert copy.served() == {"a": ["apples"], "b": ["birches"], "c": ["chestnuts"]}
    for one in (line, copy):
        assert one.indexed() == one.numbers()
    assert {source: info.number for source, info in line.listed().items()} == {"a": 2, "b": 1, "c": 1}
    assert {source: info.number for source, info in copy.listed().items()} == {"a": 1, "b": 2, "c": 1}


def test_a_document_that_is_deleted_in_one_stays_in_the_other(line):
    line.put(a="apples", b="beeches")
    copy = fork(line)
    copy.remove("a")
    copy.run()
    assert (copy.served(), line.served()) == ({"b": ["beeches"]}, {"a": ["apples"], "b": ["beeches"]})
    line.remove("b")
    line.run()
    assert (copy.served(), line.served()) == ({"b": ["beeches"]}, {"a": ["apples"]})
    copy.put(a="apples")  # deleted, so not unchanged
    assert copy.served() == {"a": ["apples"], "b": ["beeches"]}
    for one in (line, copy):
        assert one.indexed() == one.numbers()


def test_the_same_bytes_are_unchanged_in_the_fork(line):
    line.put(a="apples")
    copy = fork(line)
    accepted = copy.accept([])
    assert accepted.accepted == 0
    copy.put(a="apples")
    assert generation_info(line.catalog, copy.collection.generation.id).version == 1


def test_a_fork_lives_on_when_its_parent_is_deleted_and_the_other_way_round(line):
    line.put(a="apples")
    copy = fork(line)
    second = fork(copy, "second")
    delete_collection(line.catalog, tenant=line.tenant, name="papers")
    assert copy.served() == {"a": ["apples"]}
    delete_collection(line.catalog, tenant=line.tenant, name="copy")
    second.put(b="beeches", a="apricots")
    assert second.served() == {"a": ["apricots"], "b": ["beeches"]}
    delete_collection(line.catalog, tenant=line.tenant, name="second")
    with line.catalog.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(versions)) == 0
        assert connection.scalar(sa.select(sa.func.count()).select_from(documents)) == 0


def test_the_files_of_a_deleted_parent_stay_as_long_as_a_fork_names_them(line):
    line.put(a="apples", b="beeches")
    line.put(a="apricots")
    copy = fork(line, reference=Reference(version=1))
    delete_collection(line.catalog, tenant=line.tenant, name="papers")
    assert collect(line) > 0  # the manifests of the parent, and the second segment
    assert copy.served() == {"a": ["apples"], "b": ["beeches"]}
    copy.put(a="avocados", b="birches")
    collect(line)
    assert copy.served() == {"a": ["avocados"], "b": ["birches"]}
    delete_collection(line.catalog, tenant=line.tenant, name="copy")
    collect(line)
    assert list(line.objects.list("tenants/default/generations/")) == []


def collect(line: ServedLine) -> int:
    at_once = {"retention": Retention(1, 0.0), "min_age_s": -1e12}
    return collect_generations(line.catalog, line.objects, tenant=line.tenant, now=line.now, **at_once).objects


def test_what_is_on_its_way_into_the_parent_stays_there(line):
    line.put(a="apples")
    line.submit("b")
    copy = fork(line)
    line.run()
    assert copy.listed().keys() == {"a"}
    assert line.listed().keys() == {"a", "b"}
    assert copy.served() == {"a": ["apples"]}


def test_ids_of_chunks_go_on_where_the_version_ended(line):
    line.put(a="one\ntwo\nthree")
    copy = fork(line)
    copy.put(b="four")
    manifest = read_manifest(line.objects, generation_info(line.catalog, copy.collection.generation.id).manifest or "")
    assert [entry.first_chunk_id for entry in manifest.segments] == [1, 4]
    assert manifest.next_chunk_id == 5


def test_what_cannot_be_forked_leaves_nothing_behind(line):
    with pytest.raises(NotKept, match="had no version then"):
        fork(line)
    line.put(a="apples")
    before, objects = rows(line.catalog), {info.name for info in line.objects.list("tenants/")}
    for error, name, reference, options in (
        (NotKept, "copy", Reference(version=7), {}),
        (NotKept, "copy", Reference(tag="release"), {}),
        (NotKept, "copy", Reference(version=0), {}),
        (AlreadyExists, "papers", CURRENT, {}),
        (InvalidName, "Not allowed", CURRENT, {}),
        (LimitReached, "copy", CURRENT, {"max_collections": 1}),
    ):
        with pytest.raises(error):
            fork(line, name, reference, **options)
    assert rows(line.catalog) == before
    assert {info.name for info in line.objects.list("tenants/")} == objects


def test_a_fork_belongs_to_its_parents_tenant(line):
    line.put(a="apples")
    acme = create_tenant(line.catalog, "acme", now=1.0)
    copy = fork(line)
    with line.catalog.read() as connection:
        owners = connection.scalars(sa.select(collections.c.tenant_id)).all()
    assert set(owners) == {line.tenant}
    assert copy.collection.tenant_id != acme


def test_a_parent_that_is_published_while_it_is_forked_is_looked_at_again(line, monkeypatch):
    line.put(a="apples")
    published: list[str] = []

    def insert_once_moved(connection, copy):
        if not published:
            published.append("now")
            raise_moved.append(copy.seen)
            return False
        return insert(connection, copy)

    raise_moved: list[int] = []
    from penstock.storage.publishing import forks  # noqa: PLC0415

    insert = forks.insert_copy
    monkeypatch.setattr(forks, "insert_copy", insert_once_moved)
    copy = fork(line)
    assert raise_moved == [1]
    assert copy.served() == {"a": ["apples"]}


def test_a_publisher_waits_for_a_fork_and_a_fork_sees_what_it_published(postgres_catalog, tmp_path):
    line = new_served_line(postgres_catalog, tmp_path)
    line.put(a="apples")
    line.submit("b", text="beeches")
    line.chunk()
    line.embed()
    made: list[ServedLine] = []
    forking = threading.Thread(target=lambda: made.append(fork(line)))
    with line.catalog.write() as connection:
        held = sa.text("SELECT 1 FROM generations FOR UPDATE")  # a publisher in the middle of its transaction
        connection.execute(held)
        forking.start()
        _wait_until_someone_waits(line)
    forking.join()
    line.index()
    assert made[0].served() == {"a": ["apples"]}
    assert line.served().keys() == {"a", "b"}


def test_a_deleted_parent_is_not_found(line):
    line.put(a="apples")
    parent = collection_of(line)
    delete_collection(line.catalog, tenant=line.tenant, name="papers")
    with pytest.raises(NotFound):
        fork_collection(line.catalog, line.objects, parent=parent, reference=CURRENT, name="copy", clock=line.clock)


def _wait_until_someone_waits(line: ServedLine) -> None:
    waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    for _ in range(10_000):
        with line.catalog.read() as connection:
            if connection.scalar(waiting):
                return
    raise AssertionError("nobody waits")
