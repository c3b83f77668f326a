"""Whatever fails, tears or dies while a version is published: readers see the old or the new one, whole.

The script replaces a document, removes one, adds one, describes one anew, takes a chunk out of one and swaps a merge
in, so that every kind of file is written.
After each fault a new writer takes over, publishes the same, and the collector leaves exactly what is current.
"""

import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError

from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.retention import Retention
from penstock.storage.collecting import collect_generations, collect_scratch
from penstock.storage.errors import Conflict, Fenced, StorageError, Unavailable
from penstock.storage.failpoints import VARIABLE
from penstock.storage.objects.local import LocalObjects
from penstock.storage.objects.store import ObjectStore
from penstock.storage.publishing.leases import acquire_lease
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.publisher import Revision, Trim
from penstock.storage.segments.manifests import Swap

from ..faults import (
    PulledPlug,
    delayed_statement,
    fail_after,
    fail_before,
    failing_statement,
    repeated_statement,
    tear,
    torn_commit,
    unanswered_statement,
)
from ..faulty_proxy import FaultyProxy
from ..memory_objects import MemoryObjects
from ..s3_server import S3Server, open_objects
from ..storage_samples import (
    TENANT,
    Content,
    InterceptedObjects,
    Store,
    current_manifest,
    new_store,
    texts_of,
)

NEVER = 10_000
AT_ONCE = {"retention": Retention(keep_versions=1, keep_s=0.0), "min_age_s": -1e12}
OLD = {"a": ["a1", "a2"], "b": ["b1"], "c": ["c1"], "d": ["d1", "d2"]}
NEW = {"a": ["a3"], "c": ["c1"], "d": ["d2"], "e": ["e1"]}
REVISION = Revision("c", "c-v2", 2, None, {"topic": "new"}, event_time=None, expires_at=None, metadata_hash=b"")
CHANGES = {
    "removed_document_ids": ["b"],
    "revisions": [REVISION],
    "trims": [Trim("t", "d", text_version_id="d-v1", ordinals=[0])],
}


@pytest.fixture(params=["local", "memory", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], ObjectStore]:
    """What opens a new object store of one kind."""
    prefix = f"test-{secrets.token_hex(6)}"
    makers: dict[str, Callable[[Path], ObjectStore]] = {
        "local": lambda folder: LocalObjects(folder / "objects"),
        "memory": lambda _folder: MemoryObjects(),
        "s3": lambda folder: open_objects(
            request.getfixturevalue("s3_server").endpoint, folder / "cache", prefix=f"{prefix}/{folder.name}"
        ),
    }
    return makers[request.param]


Prepared = Callable[..., tuple[Store, Swap]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """What makes a store at the old content, and a merge of its first two segments that waits for its swap.

    A document was deleted since the merge, so that the swap has a delete to apply again.
    """
    template = tmp_path_factory.mktemp("template")
    store = new_store(template)
    store.add({"a": OLD["a"], "b": OLD["b"], "gone": ["g1"]})
    store.add({"c": OLD["c"]})
    manifest = store.add({"d": OLD["d"]}).manifest
    inputs = manifest.segments[:2]
    swap = Swap([each.id for each in inputs], build_merge(store.objects, manifest, inputs))
    store.publish(removed_document_ids=["gone"])
    store.catalog.dispose()
    written = [info.name for info in store.objects.list("")]

    def copied(folder: Path, objects: ObjectStore | None = None) -> tuple[Store, Swap]:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(template / "catalog.db", folder / "catalog.db")
        catalog, objects = (
            Catalog.open(f"sqlite:///{folder / 'catalog.db'}"),
            objects or LocalObjects(folder / "objects"),
        )
        for name in written:
            objects.put(name, [store.objects.get(name)])
        return replace(store, catalog=catalog, objects=objects, published=list(store.published)), swap

    return copied


def change(store: Store, swap: Swap) -> None:
    """Bring the store to the new content; a second time changes how it is stored, not what it is."""
    try:
        store.add({"a": NEW["a"], "e": NEW["e"]}, **CHANGES, swap=swap)
    except Conflict as error:
        if "gone" not in str(error):
            raise
        store.add({"a": NEW["a"], "e": NEW["e"]}, **CHANGES)


def check_old_or_new(content: Content) -> bool:
    """Return whether it is the new content; it must be one of the two."""
    assert texts_of(content) in (OLD, NEW)
    return texts_of(content) == NEW


def check_recovery(store: Store, swap: Swap) -> None:
    """A new writer goes on, and afterwards nothing is left that the current version does not name."""
    successor = Store(store.catalog, store.objects, now=store.now + 1_000, owner="successor")
    change(successor, swap)
    assert texts_of(successor.content()) == NEW
    collect_generations(store.catalog, successor.objects, tenant=TENANT, now=successor.now, **AT_ONCE)
    collect_scratch(successor.objects, now=successor.now, min_age_s=-1e12)
    manifest = current_manifest(store.catalog, successor.objects)
    named = {file.name for entry in manifest.segments for file in entry.all_files} | {successor.published[-1].name}
    assert {info.name for info in successor.objects.list("")} == named
    assert list(successor.objects.scratch().iterdir()) == []
    assert texts_of(successor.content()) == NEW


def fail_once_and_repeat(objects: LocalObjects, method: str, *args: object) -> None:
    """A store whose answer was lost: the operation was done, and the client does it again."""
    getattr(objects, method)(*args)


def faulty(store: Store, fault: Callable, at: int) -> tuple[Store, InterceptedObjects]:
    def before(number: int, method: str, *args: object):
        return fault(store.objects, method, *args) if number == at else None

    objects = InterceptedObjects(store.objects, before)
    return replace(store, objects=objects), objects


@pytest.mark.parametrize("fault", [fail_before, fail_after, tear])
def test_a_fault_in_any_operation_of_the_store_leaves_the_old_version(prepared, tmp_path, opened, fault):
    for at in range(1, NEVER):
        store, swap = prepared(tmp_path / str(at), opened(tmp_path / str(at)))
        writer, objects = faulty(store, fault, at)
        try:
            change(writer, swap)
        except PulledPlug:
            assert not check_old_or_new(store.content())
        else:
            break
        check_recovery(store, swap)
        store.catalog.dispose()
    assert texts_of(store.content()) == NEW
    assert objects.count == at - 1 >= 10
    print(f"{at - 1} operations")


def test_a_store_that_repeats_any_write_changes_nothing(prepared, tmp_path, opened):
    """A delivery twice: the first answer was lost on the way."""
    for at in range(1, NEVER):
        store, swap = prepared(tmp_path / str(at), opened(tmp_path / str(at)))
        writer, objects = faulty(store, fail_once_and_repeat, at)
        change(writer, swap)
        assert check_old_or_new(store.content())
        store.catalog.dispose()
        if objects.count < at:
            return


@pytest.mark.parametrize("fault", ["lose", "lose answer", "tear", "repeat", "busy"])
def test_a_fault_of_any_request_to_a_bucket_is_outlived(prepared, tmp_path, s3_server, fault):
    for at in range(1, NEVER):
        store, swap, proxy = behind_proxy(
            prepared, tmp_path / str(at), s3_server, lambda n, at=at: fault if n == at else None
        )
        with proxy:
            change(store, swap)
        store.objects = store.direct
        assert texts_of(store.content()) == NEW
        store.catalog.dispose()
        if len(proxy.seen) < at:
            break
    assert at > 10


def test_a_bucket_that_is_gone_from_any_request_on_leaves_the_old_version(prepared, tmp_path, s3_server):
    for at in range(1, NEVER, 2):
        store, swap, proxy = behind_proxy(
            prepared, tmp_path / str(at), s3_server, lambda n, at=at: "lose" if n >= at else None
        )
        with proxy:
            try:
                change(store, swap)
            except Unavailable:
                failed = True
            else:
                failed = False
        store.objects = store.direct
        assert check_old_or_new(store.content()) != failed
        if not failed:
            break
        check_recovery(store, swap)
        store.catalog.dispose()
    assert at > 10


def behind_proxy(
    prepared: Prepared, folder: Path, server: S3Server, decide: Callable, **options: Callable
) -> tuple[Store, Swap, FaultyProxy]:
    """A prepared store in a bucket, whose every further request passes a proxy; ``direct`` is the way around it."""
    prefix = f"test-{secrets.token_hex(6)}"
    direct = open_objects(server.endpoint, folder / "direct", prefix=prefix)
    store, swap = prepared(folder, direct)
    store.direct = direct
    proxy = FaultyProxy(server.endpoint, lambda request: decide(request.number), **options)
    store.objects = open_objects(proxy.endpoint, folder / "cache", prefix=prefix)
    store.objects._calls = replace(store.objects._calls, sleep=lambda _: None)
    return store, swap, proxy


@pytest.mark.parametrize("fault", [failing_statement, unanswered_statement, repeated_statement])
def test_a_fault_in_any_statement_of_the_catalog_leaves_the_old_version(prepared, tmp_path, fault):
    """One that comes twice is refused by the guard of the first, or changes nothing."""
    failures = 0
    for at in range(1, NEVER):
        store, swap = prepared(tmp_path / str(at))
        with fault(store.catalog, at) as seen:
            try:
                change(store, swap)
            except (StorageError, DatabaseError):
                failed = True
            else:
                failed = False
        assert check_old_or_new(store.content()) != failed
        if seen() < at:
            break
        failures += failed
        check_recovery(store, swap)
        store.catalog.dispose()
    assert seen() == at - 1 >= 5
    assert failures == at - 1 or (fault is repeated_statement and failures >= 1)


def take_the_lease(rival: Store) -> None:
    """Another writer thinks that the lease of this one is over, and has published nothing yet."""
    rival.epoch = acquire_lease(rival.catalog, shard=0, owner=rival.owner, ttl_s=60, now=rival.now)
    assert rival.epoch is not None


def publish_meanwhile(rival: Store) -> None:
    take_the_lease(rival)
    rival.add({"a": ["of the rival"]})


def publish_and_collect_meanwhile(rival: Store) -> None:
    """Nothing is left of what is being published, nor of what that is made from."""
    publish_meanwhile(rival)
    collect_generations(rival.catalog, rival.objects, tenant=TENANT, now=rival.now, **AT_ONCE)


MEANWHILE = [take_the_lease, publish_and_collect_meanwhile]


class Delayed:
    """What happens while a writer stands still and its lease ends; ``before`` is what is served then.

    Nothing happens while it is committing: whoever wants to write to a catalog in a file waits for the end of that.
    """

    def __init__(self, store: Store, act: Callable[[Store], None]) -> None:
        self._act = act
        self._store = store
        self.before: Content | None = None

    def __call__(self) -> None:
        path = str(self._store.catalog._writer.url.database)
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return
            connection.execute("ROLLBACK")
        catalog = Catalog.open(f"sqlite:///{path}")
        rival = Store(catalog, self._store.objects, now=self._store.now + 1_000, owner="rival")
        self._act(rival)
        self.before = rival.content()
        catalog.dispose()

    def check(self, *, fenced: bool) -> None:
        """Whoever woke up too late has changed nothing; who was not late has published."""
        assert fenced == (self.before is not None)
        content = self._store.content()
        assert texts_of(content) == NEW if self.before is None else content == self.before


def is_fenced(writer: Store, swap: Swap) -> bool:
    try:
        change(writer, swap)
    except Fenced:
        return True
    return False


@pytest.mark.parametrize("act", MEANWHILE)
def test_a_writer_that_is_delayed_at_any_operation_of_the_store_changes_nothing(prepared, tmp_path, act):
    count = 0
    for at in range(1, NEVER):
        store, swap = prepared(tmp_path / str(at))
        delayed = Delayed(store, act)
        writer, objects = faulty(store, lambda *_, delayed=delayed: delayed(), at)
        fenced = is_fenced(writer, swap)
        delayed.check(fenced=fenced)
        if objects.count < at:
            break
        count += fenced
        check_recovery(replace(store, now=store.now + 10_000), swap)
        store.catalog.dispose()
    assert count >= 10


@pytest.mark.parametrize("act", MEANWHILE)
def test_a_writer_that_is_delayed_at_any_statement_of_the_catalog_changes_nothing(prepared, tmp_path, act):
    count = 0
    for at in range(1, NEVER):
        store, swap = prepared(tmp_path / str(at))
        delayed = Delayed(store, act)
        with delayed_statement(store.catalog, at, delayed) as seen:
            fenced = is_fenced(store, swap)
        delayed.check(fenced=fenced)
        if seen() < at:
            break
        count += fenced
        check_recovery(replace(store, now=store.now + 10_000), swap)
        store.catalog.dispose()
    assert count >= 1
    assert seen() == at - 1 >= 5


def test_a_request_to_a_bucket_that_is_delayed_past_the_lease_changes_nothing(prepared, tmp_path, s3_server):
    for at in range(1, NEVER, 3):
        meanwhile: list[Delayed] = []
        store, swap, proxy = behind_proxy(
            prepared,
            tmp_path / str(at),
            s3_server,
            lambda n, at=at: "delay" if n == at else None,
            meanwhile=lambda meanwhile=meanwhile: meanwhile[0](),
        )
        meanwhile.append(Delayed(replace(store, objects=store.direct), publish_meanwhile))
        with proxy:
            fenced = is_fenced(store, swap)
        meanwhile[0].check(fenced=fenced)
        store.catalog.dispose()
        if len(proxy.seen) < at:
            break
    assert at > 10


@pytest.mark.parametrize("committed", [False, True])
def test_a_fault_at_the_commit_is_old_or_new(prepared, tmp_path, committed):
    store, swap = prepared(tmp_path)
    with torn_commit(store.catalog, {"publish"}, committed=committed), pytest.raises(PulledPlug):
        change(store, swap)

    assert check_old_or_new(store.content()) == committed
    check_recovery(store, swap)


FAILPOINTS = {
    "publish.begun": False,
    "objects.put.file_synced": False,
    "objects.put.file_synced:2": False,
    "objects.put.file_synced:3": False,
    "objects.linked": False,
    "objects.linked:2": False,
    "objects.linked:3": False,
    "publish.segments_written": False,
    "publish.files_written": False,
    "publish.before_commit": False,
    "publish.after_commit": True,
}


@pytest.mark.parametrize(("failpoint", "published"), FAILPOINTS.items())
def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new_version(prepared, tmp_path, failpoint, published):
    store, swap = prepared(tmp_path)
    store.catalog.dispose()

    with run_writer(tmp_path, swap, {VARIABLE: failpoint}) as died:
        output, _ = died.communicate(timeout=60)

    assert died.returncode == -signal.SIGKILL, output
    assert check_old_or_new(store.content()) == published
    check_recovery(store, swap)


def test_a_writer_stopped_past_its_lease_changes_nothing_when_it_wakes(prepared, tmp_path):
    store, swap = prepared(tmp_path)
    store.catalog.dispose()
    zombie = run_writer(tmp_path, swap, {"STOP_AT_PUT": "2"})
    _, status = os.waitpid(zombie.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    rival = Store(store.catalog, store.objects, now=store.now + 1_000, owner="rival")
    rival.add({"a": ["of the rival"]})
    before = rival.content()

    with zombie:
        zombie.send_signal(signal.SIGCONT)
        output, _ = zombie.communicate(timeout=60)

    assert zombie.returncode == 3, output
    assert "another writer took over" in output
    assert rival.content() == before
    assert texts_of(before) == {**OLD, "a": ["of the rival"]}


def run_writer(folder: Path, swap: Swap, environment: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), json.dumps(swap.to_details()), str(Path(__file__).parents[2])],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


WRITER = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from penstock.storage.catalog.engine import Catalog
from penstock.storage.errors import Fenced
from penstock.storage.segments.manifests import Swap
from penstock.storage.objects.local import LocalObjects
from penstock.storage.objects.store import ObjectStore
from tests.crash.test_publish_faults import change
from tests.storage_samples import InterceptedObjects, Store

folder, stop_at, puts = Path(sys.argv[1]), int(os.environ.get("STOP_AT_PUT", 0)), []

def stop(_number, method, *_args):
    puts.extend([1] if method == "put" else [])
    if method == "put" and len(puts) == stop_at:
        os.kill(os.getpid(), signal.SIGSTOP)

objects = InterceptedObjects(LocalObjects(folder / "objects"), stop)
store = Store(Catalog.open(f"sqlite:///{folder / 'catalog.db'}"), objects, owner="writer")
try:
    change(store, Swap.from_details(json.loads(sys.argv[2])))
except Fenced as error:
    print(error)
    sys.exit(3)
"""
