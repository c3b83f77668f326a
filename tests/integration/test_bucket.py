"""The roles and the readers with their objects in a bucket: what is published is served, and damage is refused."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from penstock.settings import wiring
from penstock.settings.model import Objects, Settings, Workers
from penstock.storage.errors import Damaged
from penstock.storage.objects.remote import RemoteObjects
from penstock.storage.publishing.merging import build_merge
from penstock.storage.search.refusals import REFUSED_S
from penstock.storage.search.snapshots import SnapshotCache
from penstock.storage.segments.manifests import Swap

from ..faulty_proxy import FaultyProxy
from ..s3_server import ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY, S3Server, open_objects
from ..storage_samples import GENERATION, TENANT, Store, many_rows, open_catalog, unit_vectors
from .test_workers_roles import NOBODY, WORDS, Line, Scripted

CHUNKS = 40


@pytest.fixture
def prefix() -> str:
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def store(tmp_path: Path, s3_server: S3Server, prefix: str) -> Iterator[Store]:
    """A writer whose objects lie in a bucket."""
    catalog = open_catalog(tmp_path)
    yield Store(catalog, open_objects(s3_server.endpoint, tmp_path / "writer", prefix=prefix))
    catalog.dispose()


@pytest.fixture
def reading(tmp_path: Path, s3_server: S3Server, prefix: str, store: Store) -> Iterator[tuple[RemoteObjects, Callable]]:
    """A reader on another machine: a cache directory of its own. Gives its store, and what finds all it serves."""
    objects = open_objects(s3_server.endpoint, tmp_path / "reader", prefix=prefix)
    clock = [0.0]
    snapshots = SnapshotCache(store.catalog, objects, poll_s=3_600.0, clock=lambda: clock[0])

    def version(*, min_version: int = 0) -> int:
        """Return which version is served, after finding each of its chunks."""
        clock[0] += REFUSED_S + 1
        if min_version:
            snapshots._follower.follow(GENERATION, tenant=TENANT, deadline=clock[0])
        with snapshots.get(TENANT, GENERATION) as snapshot:
            hits = snapshot.search(unit_vectors(1)[0], k=1_000, now=0.0)
            assert len(hits) == snapshot.chunk_count
            return snapshot.version

    yield objects, version
    snapshots.close()


def publish(store: Store, prefix: str) -> list[str]:
    """Add a segment of some chunks; returns the names of its files and of its manifest."""
    rows = many_rows(CHUNKS, prefix=prefix)
    published = store.publish(additions=rows, vectors=unit_vectors(CHUNKS, seed=len(store.published)))
    return [*(file.name for file in published.manifest.segments[-1].files), published.name]


def test_documents_go_through_every_role_and_are_found(tmp_path, s3_server, prefix, monkeypatch):
    """Chunk, embed, index, merge, collect and search, all on the bucket."""
    monkeypatch.setattr(wiring, "open_embedder", lambda *_args, **_values: Scripted())
    monkeypatch.setattr(os, "nice", lambda _by: 0)
    settings = Settings(
        data_dir=tmp_path,
        broker_url=NOBODY,
        workers=Workers(chunk_processes=1, chunk_memory_bytes=1 << 45),
        objects=Objects(
            url=f"s3://{BUCKET}/{prefix}",
            endpoint=s3_server.endpoint,
            region="us-east-1",
            access_key_id=ACCESS_KEY_ID,
            secret_access_key=SECRET_ACCESS_KEY,
        ),
    )
    alarm = signal.getsignal(signal.SIGALRM)
    line = Line(settings, Scripted())
    try:
        for number in range(12):
            line.submit(**{f"d{number}": f"{WORDS} number {number}"})
            line.run()
        line.submit(d0=f"{WORDS} of another kind")
        line.run()
        line.tick()
        assert set(line.states().values()) == {"indexed"}
        assert set(line.found()) == {f"d{number}" for number in range(12)}
        assert line.staged() == []
        assert not (tmp_path / "objects").exists()
    finally:
        line.close()
        signal.signal(signal.SIGALRM, alarm)


def test_a_reader_in_another_process_downloads_what_it_serves_and_shares_it(tmp_path, s3_server, prefix, store):
    publish(store, "a")
    store.publish(removed_document_ids=["a0"])

    first = read_elsewhere(tmp_path, s3_server, prefix)
    again = read_elsewhere(tmp_path, s3_server, prefix)

    assert first == {"version": 2, "chunks": CHUNKS - 4, "downloads": 2}  # a segment and its tombstones
    assert again == {**first, "downloads": 0}


@pytest.mark.parametrize("harm", ["cut", "altered", "gone"])
def test_a_harmed_object_is_refused_by_name_and_the_former_version_serves_on(store, reading, caplog, harm):
    _, version = reading
    publish(store, "a")
    assert version() == 1
    name = publish(store, "b")[0]
    data = store.objects.get(name)
    store.objects.delete(name)
    harmed = {"cut": data[:-9], "altered": data[:-100] + bytes([data[-100] ^ 1]) + data[-99:], "gone": None}[harm]
    if harmed is not None:
        store.objects.put(name, [harmed])

    assert version(min_version=2) == 1
    assert name.rpartition("/")[2] in caplog.text

    store.objects.delete(name)
    store.objects.put(name, [data])
    assert version(min_version=2) == 2


def test_a_local_copy_that_was_damaged_is_downloaded_again(store, reading, caplog):
    objects, version = reading
    name = publish(store, "a")[0]
    path = objects.local_path(name, blake2b=store.published[0].manifest.segments[0].files[0].blake2b)
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])

    assert version() == 1

    assert "was damaged and is downloaded again" in caplog.text
    assert path.read_bytes() == data


def test_a_writer_whose_local_copy_was_damaged_downloads_it_again_and_goes_on(store):
    name = publish(store, "a")[0]
    path = store.objects.local_path(name, blake2b=store.published[0].manifest.segments[0].files[0].blake2b)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-9])

    store.publish(removed_document_ids=["a0"])

    assert len(store.content()) == CHUNKS // 4 - 1


def test_searches_go_on_while_the_bucket_does_not_answer(tmp_path, s3_server, prefix, store):
    answers = [True]
    with FaultyProxy(s3_server.endpoint, lambda _: None if answers[0] else "lose") as proxy:
        objects = open_objects(proxy.endpoint, tmp_path / "reader", prefix=prefix)
        objects._calls = replace(objects._calls, sleep=lambda _: None)
        snapshots = SnapshotCache(store.catalog, objects, poll_s=3_600.0)
        publish(store, "a")
        with snapshots.get(TENANT, GENERATION) as snapshot:
            assert snapshot.version == 1
        answers[0] = False
        publish(store, "b")
        snapshots._follower.look([GENERATION])  # as the poller does
        with snapshots.get(TENANT, GENERATION) as snapshot:
            assert (snapshot.version, len(snapshot.search(np.ones(8), k=100, now=0.0))) == (1, CHUNKS)
        answers[0] = True
        snapshots._follower.look([GENERATION])
        with snapshots.get(TENANT, GENERATION) as snapshot:
            assert snapshot.version == 2
        snapshots.close()


def test_a_reader_killed_in_the_middle_of_a_download_leaves_what_the_next_one_goes_on_with(
    tmp_path, s3_server, prefix, store
):
    publish(store, "a")
    died = subprocess.run(
        reader_command(tmp_path, s3_server, prefix), env={**os.environ, "DIE_AT": "4096"}, check=False
    )
    assert died.returncode == -signal.SIGKILL
    (half,) = (tmp_path / "reader" / ".partial").iterdir()
    assert half.stat().st_size == 4_096

    read = read_elsewhere(tmp_path, s3_server, prefix)

    assert (read["version"], read["chunks"]) == (1, CHUNKS)
    assert list((tmp_path / "reader" / ".partial").iterdir()) == []


def test_a_merge_is_built_and_swapped_in_from_downloaded_inputs(store, reading):
    _, version = reading
    for prefix in "ab":
        publish(store, prefix)
    manifest = store.published[-1].manifest
    output = build_merge(store.objects, manifest, manifest.segments, graph_rows=50)
    assert output.kind == "graph"
    store.publish(swap=Swap([entry.id for entry in manifest.segments], output))

    assert version() == 3
    damaged = store.published[-1].manifest.segments[0].files[1].name
    store.objects.delete(damaged)
    with pytest.raises(Damaged, match="hnsw"):
        store.content()


def read_elsewhere(folder: Path, server: S3Server, prefix: str) -> dict[str, int]:
    done = subprocess.run(reader_command(folder, server, prefix), check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def reader_command(folder: Path, server: S3Server, prefix: str) -> list[str]:
    root = Path(__file__).parents[2]
    return [sys.executable, "-c", READER, str(root), server.endpoint, prefix, str(folder)]


READER = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from penstock.storage.objects import copies as object_cache
from penstock.storage.objects import ranges
from penstock.storage.catalog.generations import generation_info
from penstock.storage.catalog.engine import Catalog
from penstock.storage.search.versions import open_snapshot
from tests.s3_server import open_objects
from tests.storage_samples import GENERATION, unit_vectors

endpoint, prefix, folder = sys.argv[2], sys.argv[3], Path(sys.argv[4])
die_at = int(os.environ.get("DIE_AT", 0))
object_cache.RANGE_BYTES = ranges.RANGE_BYTES = 1_024
objects = open_objects(endpoint, folder / "reader", prefix=prefix)
read, looked = objects._read_exactly, []

def dying(name, e_tag, offset, size_bytes):
    if offset == die_at:  # one at a time: what is before it is written
        os.kill(os.getpid(), signal.SIGKILL)
    return read(name, e_tag, offset, size_bytes)

if die_at:
    object_cache.PARALLEL = 1
    objects._read_exactly = dying
look = objects._look
objects._look = lambda name: looked.append(name) or look(name)
catalog = Catalog.open(f"sqlite:///{folder / 'catalog.db'}")
snapshot = open_snapshot(objects, generation_info(catalog, GENERATION))
hits = snapshot.search(unit_vectors(1)[0], k=1_000, now=0.0)
print(json.dumps({"version": snapshot.version, "chunks": len(hits), "downloads": len(looked)}))
"""
