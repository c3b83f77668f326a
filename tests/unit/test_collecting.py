"""Garbage goes; what a reader, a writer or a retained version may need stays."""

import os
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, insert

from penstock.settings.model import Settings
from penstock.storage import ledger, paths
from penstock.storage.catalog import tables
from penstock.storage.catalog.retention import Retention
from penstock.storage.collecting import (
    collect_generations,
    collect_lost_staging,
    collect_packs,
    collect_scratch,
    collect_staged,
    list_staged,
)
from penstock.storage.errors import Unavailable
from penstock.storage.ids import GenerationId, TenantId
from penstock.storage.named_files import NamedFiles
from penstock.storage.search.reader_leases import LeaseWatch
from penstock.storage.segments.manifests import read_manifest
from penstock.workers.garbage import collect_all

from ..memory_objects import MemoryObjects
from ..storage_samples import GENERATION, TENANT, InterceptedObjects, Store, add_generation, open_catalog

HOUR = 3_600.0
NONE = {"retention": Retention(keep_versions=1, keep_s=0.0), "min_age_s": 0.0}


@pytest.fixture
def store(tmp_path):
    """A store whose objects are dated by its own clock."""
    store = Store(open_catalog(tmp_path), MemoryObjects(clock=lambda: store.now))
    return store


def names(store: Store, prefix: str = "tenants/") -> set[str]:
    return {info.name for info in store.objects.list(prefix)}


def collect(store: Store, *, later_s: float = 0.0, **options: object):
    return collect_generations(store.catalog, store.objects, tenant=TENANT, now=store.now + later_s, **options)


def named_by(store: Store, *manifests: str) -> set[str]:
    segments = [entry for name in manifests for entry in read_manifest(store.objects, name).segments]
    return {*manifests, *(file.name for entry in segments for file in entry.all_files)}


def publish_versions(store: Store, count: int) -> list[str]:
    return [store.add({"a": [f"text {i}"], f"d{i}": ["other"]}).name for i in range(count)]


def test_without_retention_exactly_the_current_version_is_left(store):
    versions = publish_versions(store, 5)
    before = store.content()

    collected = collect(store, **NONE)

    assert names(store) == named_by(store, versions[-1])
    assert collected.objects > 0
    assert collected.size_bytes > 0
    assert store.content() == before


def test_the_last_versions_stay_readable(store):
    versions = publish_versions(store, 8)

    collect(store, later_s=1.0, retention=Retention(keep_versions=3, keep_s=0.0), min_age_s=0.0)

    assert names(store) == named_by(store, *versions[-3:])


def test_a_version_stays_for_a_while_after_it_was_followed_by_the_next(store):
    """Its age does not matter: a version of last week that was replaced a minute ago may still be in use."""
    first = publish_versions(store, 1)[0]
    store.now += 7 * 24 * HOUR
    versions = publish_versions(store, 12)
    retention = {"retention": Retention(keep_versions=2, keep_s=HOUR), "min_age_s": 0.0}

    collect(store, **retention)
    assert names(store) == named_by(store, first, *versions)
    collect(store, later_s=HOUR, **retention)

    assert names(store) == named_by(store, *versions[-2:])


def test_of_thousands_of_tenants_those_without_old_versions_take_no_write_lock(store, monkeypatch):
    publish_versions(store, 3)
    taken: list[str] = []
    write = store.catalog.write
    monkeypatch.setattr(store.catalog, "write", lambda what: taken.append(what) or write(what))
    retention = {"retention": Retention(keep_versions=3, keep_s=0.0), "min_age_s": HOUR}

    collect(store, **retention)
    assert taken == []
    store.add({"b": ["more"]})
    taken.clear()
    collect(store, **retention)
    assert taken == ["expire_versions"]


def test_young_files_stay_whoever_wrote_them(store):
    publish_versions(store, 1)
    orphan = paths.segment(TENANT, GENERATION, "seg_orphan")
    store.objects.put(orphan, [b"of a writer that is about to publish"])

    collect(store, later_s=HOUR - 1, retention=Retention(keep_versions=1, keep_s=0.0))
    assert orphan in names(store)
    collect(store, later_s=HOUR, retention=Retention(keep_versions=1, keep_s=0.0))
    assert orphan not in names(store)


def test_what_a_fenced_writer_wrote_stays_until_it_is_old(store):
    publish_versions(store, 2)

    def refuse(*_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.add({"b": ["never indexed"]}, in_transaction=refuse)
    everything = names(store)

    collect(store, later_s=HOUR - 10, retention=Retention(keep_versions=9, keep_s=0.0))
    assert names(store) == everything
    collect(store, later_s=HOUR, retention=Retention(keep_versions=9, keep_s=0.0))
    assert names(store) == named_by(store, *(published.name for published in store.published))


def test_a_generation_with_an_unreadable_manifest_is_left_alone(store, caplog):
    versions = publish_versions(store, 3)
    everything = names(store)
    store.objects._objects[versions[-2]] = (b"rot", 0.0)

    assert collect(store, later_s=100 * HOUR).objects == 0
    assert names(store) == everything
    assert "nothing of acme is collected" in caplog.text


class Reads:
    """Which manifests were read, and how many transactions that write were open meanwhile."""

    def __init__(self, store: Store, monkeypatch) -> None:
        self.names: list[str] = []
        self.open_transactions: list[int] = []
        self._writing, write = 0, store.catalog.write

        @contextmanager
        def counted(what: str = "catalog"):
            with write(what) as connection:
                self._writing += 1
                try:
                    yield connection
                finally:
                    self._writing -= 1

        monkeypatch.setattr(store.catalog, "write", counted)
        store.objects = InterceptedObjects(store.objects, self._note)

    def _note(self, _number: int, method: str, *args: object) -> None:
        if method == "get":
            self.names.append(str(args[0]))
            self.open_transactions.append(self._writing)


def test_a_manifest_is_read_once_however_many_passes_there_are(store, monkeypatch):
    versions = publish_versions(store, 30)
    needless = names(store) - named_by(store, *versions[-20:])
    reads, named = Reads(store, monkeypatch), NamedFiles(store.objects)
    kept = Retention(keep_versions=20, keep_s=0.0)
    assert collect(store, retention=kept, min_age_s=0.0, named=named).objects == len(needless)
    assert {*versions[:10]} <= needless
    assert sorted(reads.names) == sorted(versions[-20:])
    assert collect(store, retention=kept, min_age_s=0.0, named=named).objects == 0
    versions += publish_versions(store, 2)
    reads.names.clear()
    collect(store, retention=kept, min_age_s=0.0, named=named)
    assert reads.names == versions[-2:]
    assert names(store) == named_by(store, *versions[-20:])


def test_what_is_remembered_has_a_bound(store, monkeypatch):
    versions = publish_versions(store, 12)
    reads, named = Reads(store, monkeypatch), NamedFiles(store.objects, capacity=1)
    for _ in range(2):
        reads.names.clear()
        collect(store, min_age_s=0.0, named=named, retention=Retention(keep_versions=20, keep_s=0.0))
        assert set(reads.names) == set(versions)
    assert names(store) == named_by(store, *versions)


def test_what_is_remembered_has_its_bound_after_a_pass_that_failed_too(store):
    versions, named = publish_versions(store, 12), NamedFiles(store.objects, capacity=0)

    def fail(_number: int, method: str, *_: object) -> None:
        if method == "delete":
            raise Unavailable("the object store does not answer")

    store.objects = InterceptedObjects(store.objects, fail)
    with pytest.raises(Unavailable):
        collect(store, named=named, **NONE)
    assert named.unread(versions) == versions


def test_a_version_published_between_two_looks_is_read_while_nobody_waits(store, monkeypatch):
    versions = publish_versions(store, 3)
    orphan = paths.segment(TENANT, GENERATION, "seg_orphan")
    store.objects.put(orphan, [b"x"])
    reads, write = Reads(store, monkeypatch), store.catalog.write

    def published_first(what: str = "catalog"):
        if what == "collect_generation" and len(store.published) < 5:
            versions.extend(publish_versions(store, 1))
        return write(what)

    monkeypatch.setattr(store.catalog, "write", published_first)
    assert collect(store, later_s=HOUR, retention=Retention(keep_versions=9, keep_s=0.0)).objects == 1
    assert set(versions) <= set(reads.names)
    assert set(reads.open_transactions) == {0}
    assert names(store) == named_by(store, *versions)


def test_where_versions_come_faster_than_they_are_read_files_stay_until_the_next_pass(store, monkeypatch):
    publish_versions(store, 1)
    orphan = paths.segment(TENANT, GENERATION, "seg_orphan")
    store.objects.put(orphan, [b"x"])
    write = store.catalog.write

    def published_first(what: str = "catalog"):
        if what == "collect_generation":
            publish_versions(store, 1)
        return write(what)

    with monkeypatch.context() as patched:
        patched.setattr(store.catalog, "write", published_first)
        assert collect(store, later_s=HOUR, retention=Retention(keep_versions=9, keep_s=0.0)).objects == 0
    assert orphan in names(store)
    assert collect(store, later_s=HOUR, retention=Retention(keep_versions=9, keep_s=0.0)).objects == 1


def test_a_generation_that_was_deleted_goes_whole_and_others_stay(store):
    publish_versions(store, 2)
    add_generation(store.catalog, tenant=TENANT, generation_id=GenerationId("gen_2"))
    dropped = paths.segment(TENANT, GenerationId("gen_0"), "seg_1")
    other = paths.segment(TenantId("rival"), GenerationId("gen_0"), "seg_1")
    for name in (dropped, other):
        store.objects.put(name, [b"x"])
    kept = names(store) - {dropped}

    collect(store, later_s=HOUR - 10)
    assert dropped in names(store)
    collect(store, later_s=HOUR)

    assert names(store) == kept


def test_staging_goes_with_its_batches(store):
    for batch in ("one", "two", "lost"):
        store.objects.put(paths.staged_chunks(TENANT, batch), [b"chunks"])
        store.objects.put(paths.staged_vectors(TENANT, batch, attempt=1), [b"vectors"])
    with store.catalog.write() as connection:
        given = {"tenant_id": TENANT, "generation_id": GENERATION, "shard": 0, "stage": "embed", "state": "done"}
        connection.execute(insert(tables.batches).values(id="two", group_id="two", created_at=0, **given))

    assert list_staged(store.objects, tenant=TENANT, now=store.now + HOUR - 1) == []
    staged = list_staged(store.objects, tenant=TENANT, now=store.now + HOUR)
    assert collect_staged(store.objects, [info for info in staged if paths.batch_of(info.name) == "one"]).objects == 2
    others = [info for info in staged if paths.batch_of(info.name) != "one"]
    assert collect_lost_staging(store.catalog, store.objects, tenant=TENANT, staged=others).objects == 2
    assert {paths.batch_of(name) for name in names(store)} == {"two"}


def test_a_pass_lists_what_is_staged_once(store):
    for batch in ("one", "two"):
        store.objects.put(paths.staged_chunks(TENANT, batch), [b"chunks"])
    with store.catalog.write() as connection:
        given = {"tenant_id": TENANT, "generation_id": GENERATION, "shard": 0, "stage": "embed", "state": "done"}
        connection.execute(insert(tables.batches).values(id="two", group_id="two", created_at=0, **given))
    listed: list[str] = []
    objects = InterceptedObjects(store.objects, lambda _number, method, *args: listed.append((method, *args)))
    components = SimpleNamespace(
        catalog=store.catalog, objects=objects, clock=lambda: store.now + HOUR, settings=Settings()
    )
    once = {"pruning": ledger.PruningProgress(), "readers": LeaseWatch(), "named": NamedFiles(objects)}
    assert collect_all(components, **once).objects == 2
    assert listed.count(("list", paths.staging_prefix(TENANT))) == 1


def test_packs_stay_as_long_as_a_version_refers_to_them_or_they_are_young(store):
    used, unused = (paths.pack(TENANT, digest=digest) for digest in ("0a", "0b"))
    for pack in (used, unused):
        store.objects.put(pack, [b"bytes"])
    refer_to(store, used)

    def collected(later_s: float) -> int:
        return collect_packs(store.catalog, store.objects, tenant=TENANT, now=store.now + later_s).objects

    assert collected(HOUR - 1) == 0
    store.now += HOUR
    store.objects.put(unused, [b"bytes"])  # submitted again
    assert collected(HOUR - 1) == 0
    assert collected(HOUR) == 1
    assert names(store) == {used}
    with store.catalog.write() as connection:
        connection.execute(delete(tables.versions))
    assert collected(HOUR) == 1


def test_a_pack_submitted_again_while_it_is_being_collected_stays(store, monkeypatch):
    pack = paths.pack(TENANT, digest="0a")
    store.objects.put(pack, [b"bytes"])
    listed = list(store.objects.list(pack))
    later = store.now + 2 * HOUR
    store.now = later
    answers = [listed]
    list_now = store.objects.list
    monkeypatch.setattr(store.objects, "list", lambda prefix: answers.pop() if answers else list_now(prefix))
    store.objects.put(pack, [b"bytes"])

    assert collect_packs(store.catalog, store.objects, tenant=TENANT, now=later).objects == 0


def test_what_dead_processes_left_in_scratch_goes(store):
    old, young = (store.objects.scratch() / name for name in ("old", "young"))
    for path, modified_at in ((old, 1_000.0), (young, 1_000.0 + HOUR)):
        path.write_bytes(b"half a file")
        os.utime(path, (modified_at, modified_at))

    assert collect_scratch(store.objects, now=1_000.0 + HOUR).objects == 1
    assert young.exists()
    assert not old.exists()


def refer_to(store: Store, pack: str) -> None:
    collection = f"collection-of-{GENERATION}"
    with store.catalog.write() as connection:
        mine = {"tenant_id": TENANT, "collection_id": collection}
        connection.execute(insert(tables.jobs).values(id="job", state="running", created_at=0, **mine))
        connection.execute(insert(tables.documents).values(id="doc", source="a", newest=1, created_at=0, **mine))
        connection.execute(
            insert(tables.versions).values(
                id="v1",
                generation_id=GENERATION,
                document_id="doc",
                job_id="job",
                number=1,
                state="indexed",
                filename="a",
                metadata={},
                content_hash=b"",
                metadata_hash=b"",
                pack=pack,
                pack_offset=0,
                size_bytes=5,
                created_at=0,
                **mine,
            )
        )
