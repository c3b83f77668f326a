"""Which versions of a generation are kept: by retention, by tags, by whoever holds one; and the end of the others."""

import threading

import pytest
import sqlalchemy as sa

from penstock.storage.catalog import references
from penstock.storage.catalog.collections import CollectionInfo, change_retention, create_collection, delete_collection
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.manifests import Origin, hold_manifest, list_manifests, record_manifest
from penstock.storage.catalog.reader_leases import take_lease
from penstock.storage.catalog.retention import Retention, expire_versions, retained_manifests
from penstock.storage.catalog.tables import generations, manifests, tags
from penstock.storage.catalog.tags import put_tag, remove_tag
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.errors import AlreadyExists, InvalidName, NotFound, NotKept
from penstock.storage.ids import ManifestVersion, TenantId
from penstock.storage.segments.manifests import FileEntry, Manifest, SegmentEntry

TENANT = TenantId("default")


@pytest.fixture
def collection(catalog) -> CollectionInfo:
    return made(catalog)


def made(catalog: Catalog, *, tenant: TenantId = TENANT, name: str = "papers") -> CollectionInfo:
    options = {"model": "hash", "dimensions": 8, "metric": "cosine", "chunking": {}, "shards": 1}
    return create_collection(catalog, tenant=tenant, name=name, now=1.0, **options)  # type: ignore[arg-type]


def manifest_of(collection: CollectionInfo, *, version: int, created_at: float) -> Manifest:
    generation = collection.generation
    prefix = f"tenants/{collection.tenant_id}/generations/{generation.id}/segments/"
    files = [FileEntry(f"{prefix}seg_{version}.segment", size_bytes=100, blake2b="0" * 64)]
    return Manifest(
        generation_id=generation.id,
        tenant_id=collection.tenant_id,
        collection_id=collection.id,
        collection_name=collection.name,
        version=ManifestVersion(version),
        parent=None,
        writer_epoch=3,
        model="hash",
        dimensions=8,
        metric="cosine",
        chunking={},
        shard=0,
        next_chunk_id=11,
        created_at=created_at,
        segments=[SegmentEntry(f"seg_{version}", "flat", 10, 1, 10, files)],  # type: ignore[arg-type]
    )


def publish(
    catalog: Catalog, collection: CollectionInfo, *, version: int, at: float, operation: str = "publish"
) -> str:
    manifest, name = manifest_of(collection, version=version, created_at=at), f"{collection.name}-{version}"
    with catalog.write() as connection:
        mine = generations.c.id == collection.generation.id
        connection.execute(sa.update(generations).where(mine).values(version=version, manifest=name))
        record_manifest(connection, manifest, name=name, origin=Origin(operation))  # type: ignore[arg-type]
    return name


def kept(catalog: Catalog, collection: CollectionInfo) -> list[int]:
    with catalog.read() as connection:
        found = list_manifests(connection, collection.generation.id, limit=1_000)
    return [info.version for info in found]


def expire(catalog: Catalog, *, now: float, tenant: TenantId = TENANT, **retention: float) -> list[str]:
    """Expire, and return the names in an order of their own: a database returns them in any."""
    with catalog.write() as connection:
        policy = Retention(**{"keep_versions": 2, "keep_s": 0.0, **retention})  # type: ignore[arg-type]
        return sorted(expire_versions(connection, tenant=tenant, now=now, retention=policy))


def tag(catalog: Catalog, collection: CollectionInfo, name: str, version: int, **options: bool) -> None:
    with catalog.write() as connection:
        put_tag(connection, collection.generation.id, name=name, version=version, now=50.0, **options)


def test_a_version_tells_what_made_it_and_when_it_was_followed(catalog, collection):
    publish(catalog, collection, version=1, at=10.0)
    publish(catalog, collection, version=2, at=20.0, operation="merge")
    with catalog.read() as connection:
        second, first = list_manifests(connection, collection.generation.id, limit=10)
        assert list_manifests(connection, collection.generation.id, before=2, limit=10) == [first]
        assert list_manifests(connection, collection.generation.id, limit=1) == [second]
    assert (first.version, first.name, first.origin) == (1, "papers-1", Origin("publish"))
    assert (first.created_at, first.followed_at) == (10.0, 20.0)
    assert (second.created_at, second.followed_at, second.origin) == (20.0, None, Origin("merge"))
    assert (second.segment_count, second.live_chunks, second.size_bytes, second.writer_epoch) == (1, 10, 100, 3)


def test_the_newest_versions_are_kept_whatever_their_age_and_older_ones_until_they_are_old(catalog, collection):
    for version in range(1, 6):
        publish(catalog, collection, version=version, at=10.0 * version)
    assert expire(catalog, now=1e9, keep_versions=5) == []
    assert expire(catalog, now=39.9, keep_s=10.0) == ["papers-1"]  # 2 was followed at 30
    assert expire(catalog, now=40.0, keep_s=10.0) == ["papers-2"]
    assert expire(catalog, now=1e9) == ["papers-3"]
    assert expire(catalog, now=1e9) == []
    assert kept(catalog, collection) == [5, 4]


def test_a_collection_may_keep_more_or_less_than_the_others(catalog, collection):
    other = made(catalog, name="other")
    for one in (collection, other):
        for version in range(1, 6):
            publish(catalog, one, version=version, at=10.0 * version)
    change_retention(catalog, tenant=TENANT, name="other", values={"keep_versions": 4})
    assert expire(catalog, now=1e9) == ["other-1", "papers-1", "papers-2", "papers-3"]
    change_retention(catalog, tenant=TENANT, name="other", values={"keep_versions": 1, "keep_s": 10.0})
    assert expire(catalog, now=50.0) == ["other-2", "other-3"]
    info = change_retention(catalog, tenant=TENANT, name="other", values={"keep_versions": None, "keep_s": None})
    assert (info.keep_versions, info.keep_s) == (None, None)
    assert expire(catalog, now=1e9) == []
    with pytest.raises(NotFound):
        change_retention(catalog, tenant=TENANT, name="nothing", values={"keep_s": 1.0})


def test_what_a_tag_or_a_lease_keeps_is_not_locked_at_each_pass(catalog, collection):
    """Somebody else may hold such a version for as long as he likes, and there may be thousands."""
    for version in range(1, 5):
        publish(catalog, collection, version=version, at=10.0 * version)
    tag(catalog, collection, "release", 1)
    take_lease(catalog, (collection.generation.id, 2), reader="reader")
    seen: list[int] = []

    def note(_connection, cursor, statement, *_rest) -> None:
        if "FOR UPDATE" in statement and "manifests" in statement:
            seen.append(cursor.rowcount)

    sa.event.listen(catalog._writer, "after_cursor_execute", note)
    assert expire(catalog, now=1e9) == []
    sa.event.remove(catalog._writer, "after_cursor_execute", note)
    assert sum(seen) == 0
    assert kept(catalog, collection) == [4, 3, 2, 1]


def test_who_names_a_version_that_is_not_there_is_told_of_the_newest_ones_only(catalog, collection, monkeypatch):
    monkeypatch.setattr(references, "_VERSIONS_SEEN", 3)
    for version in range(1, 7):
        publish(catalog, collection, version=version, at=10.0 * version)
    with pytest.raises(NotKept, match=r"there are versions …, 4 to 6"):
        references.find_version(catalog, collection.generation.id, references.Reference(version=9))


def test_the_current_version_is_kept_under_the_strictest_retention(catalog, collection):
    publish(catalog, collection, version=1, at=10.0)
    publish(catalog, collection, version=2, at=20.0)
    assert expire(catalog, now=1e9, keep_versions=0) == ["papers-1"]
    assert kept(catalog, collection) == [2]


def test_a_tagged_version_is_kept_until_its_last_tag_is_gone(catalog, collection):
    for version in range(1, 5):
        publish(catalog, collection, version=version, at=10.0 * version)
    tag(catalog, collection, "release", 1)
    tag(catalog, collection, "first", 1)
    assert expire(catalog, now=1e9) == ["papers-2"]
    with catalog.write() as connection:
        remove_tag(connection, collection.generation.id, name="first")
    assert expire(catalog, now=1e9) == []
    assert kept(catalog, collection) == [4, 3, 1]
    with catalog.write() as connection:
        remove_tag(connection, collection.generation.id, name="release")
    assert expire(catalog, now=1e9) == ["papers-1"]


def test_retention_and_tags_of_one_tenant_and_collection_say_nothing_of_another(catalog, collection):
    other = made(catalog, name="other")
    acme = made(catalog, tenant=create_tenant(catalog, "acme", now=1.0), name="papers")
    for one in (collection, other, acme):
        for version in (1, 2, 3):
            publish(catalog, one, version=version, at=10.0 * version)
    tag(catalog, other, "release", 1)
    assert expire(catalog, now=1e9) == ["papers-1"]
    assert kept(catalog, other) == [3, 2, 1]
    assert kept(catalog, acme) == [3, 2, 1]
    with catalog.read() as connection:
        names = retained_manifests(connection, tenant=TENANT)
        assert names.keys() == {"papers-2", "papers-3", "other-1", "other-2", "other-3"}
        assert names["other-1"] == other.generation.id
        assert len(retained_manifests(connection, tenant=acme.tenant_id)) == 3


def test_a_tag_names_one_version_and_moves_only_when_asked(catalog, collection):
    publish(catalog, collection, version=1, at=10.0)
    publish(catalog, collection, version=2, at=20.0)
    tag(catalog, collection, "release", 1)
    tag(catalog, collection, "release", 1)  # twice is harmless
    with pytest.raises(AlreadyExists, match="'release' names version 1 already"):
        tag(catalog, collection, "release", 2)
    tag(catalog, collection, "release", 2, move=True)
    tag(catalog, collection, "a", 2)
    with catalog.read() as connection:
        newest, oldest = list_manifests(connection, collection.generation.id, limit=10)
    assert (newest.tags, oldest.tags) == (("a", "release"), ())


@pytest.mark.parametrize("name", ["", "12", "2026-01-01", "current", "Release", "a b", "-a", "a" * 65])
def test_a_tag_that_could_be_taken_for_a_number_or_a_time_is_refused(catalog, collection, name):
    publish(catalog, collection, version=1, at=10.0)
    with pytest.raises(InvalidName, match="tag name"):
        tag(catalog, collection, name, 1)


def test_a_version_that_is_not_kept_cannot_be_tagged_and_a_tag_that_is_not_there_not_removed(catalog, collection):
    with pytest.raises(NotFound, match="version 1 is not kept"):
        tag(catalog, collection, "release", 1)
    with catalog.write() as connection, pytest.raises(NotFound, match="no tag 'release'"):
        remove_tag(connection, collection.generation.id, name="release")
    with catalog.write() as connection, pytest.raises(NotFound, match="no generation"):
        put_tag(connection, "gen_of_nobody", name="release", version=1, now=1.0)  # type: ignore[arg-type]


def test_the_history_of_a_collection_goes_with_it(catalog, collection):
    publish(catalog, collection, version=1, at=10.0)
    tag(catalog, collection, "release", 1)
    delete_collection(catalog, tenant=TENANT, name="papers")
    with catalog.read() as connection:
        assert retained_manifests(connection, tenant=TENANT) == {}
        assert connection.execute(sa.select(tags)).all() == []


def test_a_version_that_someone_holds_is_not_forgotten_and_nobody_waits(postgres_catalog):
    """A tag, a fork or a rollback is between its look at the version and its commit."""
    catalog = postgres_catalog
    collection = made(catalog)
    for version in (1, 2, 3):
        publish(catalog, collection, version=version, at=10.0 * version)
    with catalog.write() as connection:
        hold_manifest(connection, collection.generation.id, 1)
        assert expire(catalog, now=1e9) == []
    assert expire(catalog, now=1e9) == ["papers-1"]


def test_a_tag_that_waits_for_the_end_of_its_version_is_refused(postgres_catalog):
    catalog = postgres_catalog
    collection = made(catalog)
    for version in (1, 2, 3):
        publish(catalog, collection, version=version, at=10.0 * version)
    outcome: list[BaseException | None] = []

    def try_to_tag() -> None:
        try:
            tag(catalog, collection, "release", 1)
            outcome.append(None)
        except NotFound as error:
            outcome.append(error)

    rival = threading.Thread(target=try_to_tag)
    with catalog.write() as connection:
        assert expire_versions(connection, tenant=TENANT, now=1e9, retention=Retention(2, 0.0)) == ["papers-1"]
        rival.start()
        _wait_until_someone_waits(catalog)
    rival.join()
    assert isinstance(outcome[0], NotFound)
    with catalog.read() as connection:
        assert connection.execute(sa.select(tags)).all() == []
        assert connection.scalars(sa.select(manifests.c.version).order_by(manifests.c.version)).all() == [2, 3]


def _wait_until_someone_waits(catalog: Catalog) -> None:
    waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    for _ in range(10_000):
        with catalog.read() as connection:
            if connection.scalar(waiting):
                return
    raise AssertionError("nobody waits")
