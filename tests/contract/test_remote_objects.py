"""What a store in a bucket promises besides: whatever happens on the way, and to the copies that are mapped."""

import errno
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from penstock.api.cli.checks import Finding, run_checks
from penstock.settings.model import Settings
from penstock.storage.errors import AlreadyExists, Damaged, NotFound, Unavailable
from penstock.storage.objects import copies as object_cache
from penstock.storage.objects import ranges
from penstock.storage.objects import remote as remote_objects
from penstock.storage.objects.mapped_files import open_to_map
from penstock.storage.objects.store import ObjectStore
from penstock.storage.segments.sections import open_sections, write_sections

from ..faulty_proxy import FaultyProxy
from ..s3_server import ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY, S3Server, open_objects

NAME = "tenants/acme/generations/g/segments/seg_1.segment"
RANGE = 1_000


def digest(data: bytes) -> str:
    return blake2b(data, digest_size=32).hexdigest()


def noise(size_bytes: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size_bytes)


@pytest.fixture
def prefix() -> str:
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def objects(s3_server: S3Server, tmp_path: Path, prefix: str) -> ObjectStore:
    """The store without faults."""
    return open_objects(s3_server.endpoint, tmp_path / "cache", prefix=prefix)


@pytest.fixture
def small_ranges(monkeypatch):
    """Files of some thousand bytes are downloaded in several ranges."""
    for module in (object_cache, ranges):
        monkeypatch.setattr(module, "RANGE_BYTES", RANGE)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(remote_objects, "SINGLE_PUT_BYTES", 6 << 20)
    monkeypatch.setattr(remote_objects, "PART_BYTES", 5 << 20)


@contextmanager
def through_proxy(server: S3Server, folder: Path, prefix: str, decide: Callable, *, silence_s: float = 10.0):
    """A store behind a proxy with faults, which never sleeps between attempts."""
    with FaultyProxy(server.endpoint, decide) as proxy:
        store = open_objects(proxy.endpoint, folder, prefix=prefix, silence_s=silence_s)
        store._calls = replace(store._calls, sleep=lambda _: None)
        yield store, proxy


@pytest.mark.parametrize("fault", ["lose", "lose answer", "repeat", "busy"])
def test_a_write_that_meets_one_fault_is_written_once(s3_server, tmp_path, objects, prefix, fault):
    def first_of_all(request):
        return fault if request.number == 1 else None

    with through_proxy(s3_server, tmp_path / "other", prefix, first_of_all) as (store, proxy):
        store.put(NAME, [b"what was meant"])
        assert objects.get(NAME) == b"what was meant"
        with pytest.raises(AlreadyExists):
            store.put(NAME, [b"something of another size"])

    assert objects.get(NAME) == b"what was meant"
    assert len(proxy.seen) > 1


@pytest.mark.parametrize("fault", ["lose", "lose answer", "tear", "busy"])
@pytest.mark.parametrize("operation", ["get", "get_range", "local_path", "find", "list", "delete"])
def test_an_operation_that_meets_one_fault_succeeds(s3_server, tmp_path, objects, prefix, operation, fault):
    objects.put(NAME, [b"0123456789"])
    operations: dict[str, Callable[[ObjectStore], object]] = {
        "get": lambda store: store.get(NAME) == b"0123456789",
        "get_range": lambda store: store.get_range(NAME, offset=2, size_bytes=3) == b"234",
        "local_path": lambda store: store.local_path(NAME, blake2b=digest(b"0123456789")).read_bytes() == b"0123456789",
        "find": lambda store: store.find(NAME).size_bytes == 10,
        "list": lambda store: [info.name for info in store.list("tenants/")] == [NAME],
        "delete": lambda store: store.delete(NAME) is None and not store.exists(NAME),
    }

    with through_proxy(
        s3_server, tmp_path / "other", prefix, lambda request: fault if request.number == 1 else None
    ) as (store, proxy):
        assert operations[operation](store)
        assert proxy.seen


def test_a_large_write_that_meets_a_fault_anywhere_is_whole(s3_server, tmp_path, objects, prefix, small_parts):
    data = noise(12 << 20)
    for at in range(1, 100):
        name = f"tenants/acme/big/{at}"
        with through_proxy(
            s3_server,
            tmp_path / "other",
            prefix,
            lambda request, at=at: "lose answer" if request.number == at else None,
        ) as (store, proxy):
            built = store.scratch() / "built"
            built.write_bytes(data)
            store.adopt(name, built)
            assert not built.exists()
        assert digest(objects.get(name)) == digest(data)
        if len(proxy.seen) < at:
            break
    assert at > 4  # a question, a beginning, parts, an end


def test_packs_are_repaired_in_parts_too(objects, small_parts):
    data = noise(7 << 20)
    name = f"tenants/acme/packs/{digest(data)}"
    objects.put(name, [b"rot"])

    objects.put(name, [data[:100], data[100:]])

    assert objects.get(name) == data


def test_a_large_write_of_another_size_is_refused(objects, small_parts):
    objects.put(NAME, [b"x"])
    with pytest.raises(AlreadyExists):
        objects.put(NAME, [noise(7 << 20)])
    assert objects.get(NAME) == b"x"


def test_a_store_that_never_answers_is_unavailable_within_its_attempts(s3_server, tmp_path, prefix):
    with (
        through_proxy(s3_server, tmp_path, prefix, lambda _: "lose") as (store, proxy),
        pytest.raises(Unavailable, match=r"did not answer.*objects\.endpoint"),
    ):
        store.get(NAME)
    assert len(proxy.seen) == store._calls.attempts


def test_a_request_that_hangs_is_given_up(s3_server, tmp_path, objects, prefix):
    objects.put(NAME, [b"here"])

    with through_proxy(
        s3_server, tmp_path, prefix, lambda request: "hang" if request.number == 1 else None, silence_s=0.5
    ) as (store, _):
        assert store.get(NAME) == b"here"


def test_nobody_listening_and_wrong_keys_are_told_apart_and_no_key_is_shown(s3_server, tmp_path, prefix, caplog):
    caplog.set_level(logging.DEBUG)
    nobody = open_objects("http://127.0.0.1:9", tmp_path, prefix=prefix)
    nobody._calls = replace(nobody._calls, sleep=lambda _: None)
    stranger = open_objects(s3_server.endpoint, tmp_path, prefix=prefix, secret="a-wrong-secret")

    with pytest.raises(Unavailable, match="did not answer") as unreached:
        nobody.get(NAME)
    with pytest.raises(Unavailable, match=r"refuses the credentials \(403.*objects.access_key_id") as refused:
        stranger.put(NAME, [b"x"])
    with pytest.raises(Unavailable, match="refuses the credentials"):
        list(stranger.list("tenants/"))

    assert "127.0.0.1" not in f"{unreached.value} {refused.value}"  # for a tenant
    assert f"{s3_server.endpoint}: it refuses the credentials" in caplog.text  # for who runs it
    told = f"{unreached.value} {refused.value} {stranger!r} {vars(stranger)} {caplog.text}"
    assert "a-wrong-secret" not in told
    assert SECRET_ACCESS_KEY not in told


def test_a_repeated_write_counts_as_modified_a_moment_ago(objects, monkeypatch):
    objects.put(NAME, [b"first"])
    written = objects.find(NAME).modified_at
    objects._clock = lambda: written + 1_000
    while objects.find(NAME).modified_at == written:  # servers date to the second
        objects.put(NAME, [b"again"])

    assert objects.get(NAME) == b"first"


@pytest.mark.parametrize("moment", ["found", "read"])
def test_an_object_that_is_collected_while_it_is_written_again_is_there_afterwards(objects, monkeypatch, moment):
    """The collector comes between the look at what is there and its being dated anew."""
    objects.put(NAME, [b"first"])
    objects._clock = lambda: 1e12
    method = {"found": "find", "read": "_put"}[moment]
    done, collected = getattr(objects, method), []

    def collecting(name, *rest, **options):
        found = done(name) if moment == "found" else None
        if not collected and (moment == "found" or isinstance(options["mode"], dict)):
            collected.append(name)
            objects.delete(name)
        return found if moment == "found" else done(name, *rest, **options)

    monkeypatch.setattr(objects, method, collecting)
    objects.put(NAME, [b"again"])
    assert collected == [NAME]
    assert len(objects.get(NAME)) == 5


def test_a_damaged_pack_is_replaced_by_the_bytes_its_name_says(objects):
    pack = f"tenants/acme/packs/{digest(b'right')}"
    objects.put(pack, [b"wrong"])

    objects.put(pack, [b"right"])

    assert objects.get(pack) == b"right"


def test_a_copy_is_downloaded_once_and_outlives_its_object(s3_server, tmp_path, objects, prefix, small_ranges):
    data = noise(10 * RANGE + 17)
    objects.put(NAME, [data])
    with through_proxy(s3_server, tmp_path / "other", prefix, lambda _: None) as (store, proxy):
        assert store.local_path(NAME, blake2b=digest(data)).read_bytes() == data
        asked = len(proxy.seen)
        objects.delete(NAME)
        assert store.local_path(NAME, blake2b=digest(data)).read_bytes() == data
        assert len(proxy.seen) == asked == 11
    with pytest.raises(NotFound):
        objects.local_path(NAME, blake2b=digest(data))


def test_a_download_goes_on_where_it_broke_off(s3_server, tmp_path, objects, prefix, small_ranges):
    data = noise(10 * RANGE)
    objects.put(NAME, [data])

    def from_the_sixth_on(request):
        return "lose" if request.number >= 6 else None

    with (
        through_proxy(s3_server, tmp_path / "other", prefix, from_the_sixth_on) as (store, _),
        pytest.raises(Unavailable),
    ):
        store.local_path(NAME, blake2b=digest(data))
    with through_proxy(s3_server, tmp_path / "other", prefix, lambda _: None) as (store, proxy):
        assert store.local_path(NAME, blake2b=digest(data)).read_bytes() == data

    assert len(proxy.seen) == 1 + 5  # a look, and what was missing
    assert list((tmp_path / "other" / ".partial").iterdir()) == []


def test_an_altered_download_is_refused_by_name_and_never_shown(s3_server, tmp_path, objects, prefix):
    data = noise(5_000)
    objects.put(NAME, [data])

    with through_proxy(
        s3_server, tmp_path / "other", prefix, lambda request: "alter" if request.method == "GET" else None
    ) as (store, proxy):
        with pytest.raises(Damaged, match=NAME):
            store.local_path(NAME, blake2b=digest(data))
        once = len(proxy.seen)
        with pytest.raises(Damaged, match=NAME):
            store.local_path(NAME, blake2b=digest(data))

    assert len(proxy.seen) == once + 1  # a look; the same bytes are not downloaded again for every search
    assert not any(path.is_file() for path in (tmp_path / "other" / "checked").rglob("*"))


def test_a_network_that_alters_once_is_outlived(s3_server, tmp_path, objects, prefix, small_ranges):
    data = noise(5 * RANGE)
    objects.put(NAME, [data])

    with through_proxy(
        s3_server, tmp_path / "other", prefix, lambda request: "alter" if request.number == 3 else None
    ) as (store, _):
        assert store.local_path(NAME, blake2b=digest(data)).read_bytes() == data


def test_an_object_that_changes_while_it_is_downloaded_is_not_mixed(s3_server, tmp_path, objects, prefix, small_ranges):
    pack = f"tenants/acme/packs/{digest(noise(9 * RANGE))}"
    objects.put(pack, [noise(9 * RANGE, seed=1)])

    def overwrite(request):
        if request.number == 2:
            objects.put(pack, [noise(9 * RANGE)])

    with through_proxy(s3_server, tmp_path / "other", prefix, overwrite) as (store, _):
        with pytest.raises(Unavailable, match="written anew"):
            store.local_path(pack)
        assert store.local_path(pack).read_bytes() == noise(9 * RANGE)


def test_a_damaged_copy_is_dropped_and_downloaded_again(objects, caplog):
    data = noise(5_000)
    objects.put(NAME, [data])
    path = objects.local_path(NAME, blake2b=digest(data))
    assert not objects.drop_damaged_copy(NAME, blake2b=digest(data))
    path.chmod(0o644)
    path.write_bytes(data[:100] + b"rot" + data[103:])

    assert objects.drop_damaged_copy(NAME, blake2b=digest(data))

    assert objects.local_path(NAME, blake2b=digest(data)).read_bytes() == data
    assert "damaged" in caplog.text


def test_a_copy_that_the_disk_cannot_read_is_downloaded_again(objects, monkeypatch):
    objects.put(NAME, [b"content"])
    copy = objects.local_path(NAME, blake2b=digest(b"content"))
    for number, dropped in ((errno.EIO, True), (errno.EACCES, None)):

        def failing(*_args, number=number):
            raise OSError(number, "the disk says so")

        with monkeypatch.context() as patched:
            patched.setattr(object_cache, "file_digest", failing)
            if dropped:
                assert objects.drop_damaged_copy(NAME, blake2b=digest(b"content"))
            else:
                with pytest.raises(OSError, match="the disk says so"):
                    objects.drop_damaged_copy(NAME, blake2b=digest(b"content"))
        assert copy.exists() == (not dropped)
        objects.local_path(NAME, blake2b=digest(b"content"))


def test_a_copy_without_a_checksum_does_not_count_as_one_with(objects):
    objects.put(NAME, [b"of unknown truth"])
    assert objects.local_path(NAME).read_bytes() == b"of unknown truth"

    with pytest.raises(Damaged):
        objects.local_path(NAME, blake2b=digest(b"another"))


def test_the_least_used_copies_go_and_mapped_ones_stay(s3_server, tmp_path, prefix):
    objects = open_objects(s3_server.endpoint, tmp_path, prefix=prefix, capacity_bytes=10_000)
    for i in range(4):
        objects.put(f"a/{i}", [noise(3_000, seed=i)])
    mapped = np.memmap(held := open_to_map(objects.local_path("a/0")), "u1", "r")
    held.close()  # as a reader does: the map keeps the lock
    assert [objects.local_path("a/1").read_bytes(), objects.local_path("a/2").read_bytes()]
    os.utime(objects.local_path("a/1"), (1_000, 1_000))
    os.utime(objects.local_path("a/0"), (1, 1))

    objects.local_path("a/3")

    left = {path.name for path in (tmp_path / "unchecked" / "a").iterdir()}
    assert left == {"0", "2", "3"}
    assert mapped.tobytes() == noise(3_000)
    del mapped
    os.utime(tmp_path / "unchecked" / "a" / "0", (1, 1))
    objects.put("a/4", [noise(4_000)])
    objects.local_path("a/4")
    assert "0" not in {path.name for path in (tmp_path / "unchecked" / "a").iterdir()}


def test_more_than_fits_is_served_as_long_as_it_is_mapped(s3_server, tmp_path, prefix):
    objects = open_objects(s3_server.endpoint, tmp_path, prefix=prefix, capacity_bytes=5_000)
    maps = []
    for i in range(4):
        objects.put(f"a/{i}", write_sections("test", meta={}, arrays={"x": np.full(500, i, "<f4")}))
        maps.append(open_sections(objects.local_path(f"a/{i}"), kind="test"))

    assert [float(sections.arrays["x"][-1]) for sections in maps] == [0.0, 1.0, 2.0, 3.0]
    assert len(list((tmp_path / "unchecked" / "a").iterdir())) == 4


def test_several_threads_download_a_file_once(s3_server, tmp_path, objects, prefix, small_ranges):
    data = noise(8 * RANGE)
    objects.put(NAME, [data])
    with through_proxy(s3_server, tmp_path / "other", prefix, lambda _: None) as (store, proxy):
        with ThreadPoolExecutor(6) as pool:
            paths = list(pool.map(lambda _: store.local_path(NAME, blake2b=digest(data)), range(12)))
        assert {path.read_bytes() for path in paths} == {data}
        later = [request.range for request in proxy.seen if not request.range.startswith("bytes=0-")]

    assert len(later) == len(set(later)) == 7  # all may look, one downloads what follows


def test_a_download_that_was_stopped_in_another_process_is_not_waited_for(
    s3_server, tmp_path, objects, small_ranges, monkeypatch
):
    """Stopped for ever while it holds the file: a reader must not share its fate."""
    monkeypatch.setattr(object_cache, "STALLED_S", 0.2)
    data = noise(8 * RANGE)
    objects.put(NAME, [data])
    partial = stopped_download(s3_server, tmp_path / "other", objects, data)
    other = open_objects(s3_server.endpoint, tmp_path / "other", prefix=objects._store.prefix)
    try:
        assert other.local_path(NAME, blake2b=digest(data)).read_bytes() == data
    finally:
        partial.kill()
        partial.communicate()


def test_a_killed_download_is_resumed_by_the_next_process(s3_server, tmp_path, objects, prefix, small_ranges):
    data = noise(8 * RANGE)
    objects.put(NAME, [data])
    process = stopped_download(s3_server, tmp_path / "other", objects, data)
    process.kill()
    process.communicate()
    (half,) = (tmp_path / "other" / ".partial").iterdir()
    there = half.stat().st_size
    assert 0 < there < len(data)

    with through_proxy(s3_server, tmp_path / "other", prefix, lambda _: None) as (store, proxy):
        assert store.local_path(NAME, blake2b=digest(data)).read_bytes() == data

    assert len(proxy.seen) == 1 + (len(data) - there) // RANGE


def stopped_download(server: S3Server, folder: Path, objects: ObjectStore, data: bytes) -> subprocess.Popen:
    """A process that has stopped itself in the middle of downloading the object."""
    arguments = [server.endpoint, str(folder), objects._store.prefix, NAME, digest(data)]
    process = subprocess.Popen(
        [sys.executable, "-c", DOWNLOADER, str(Path(__file__).parents[2]), *arguments], stdout=subprocess.PIPE
    )
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), status
    assert os.WSTOPSIG(status) == signal.SIGSTOP
    return process


DOWNLOADER = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from penstock.api.cli.checks import Finding, run_checks
from penstock.settings.model import Settings
from penstock.storage.objects import copies as object_cache
from penstock.storage.objects import ranges
from tests.s3_server import open_objects

object_cache.RANGE_BYTES = ranges.RANGE_BYTES = {RANGE}
object_cache.PARALLEL = 1
endpoint, folder, prefix, name, checksum = sys.argv[2:]
store = open_objects(endpoint, Path(folder), prefix=prefix)
read = store._read_exactly

def stopping(name, e_tag, offset, size_bytes):
    if offset == {4 * RANGE}:
        os.kill(os.getpid(), signal.SIGSTOP)
    return read(name, e_tag, offset, size_bytes)

store._read_exactly = stopping
store.local_path(name, blake2b=checksum)
"""


def test_a_store_is_safe_between_threads(objects):
    stop = threading.Event()
    objects.put(NAME, [b"same"])

    def read(_):
        while not stop.is_set():
            assert objects.get(NAME) == b"same"
        return True

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, i) for i in range(3)]
        for i in range(20):
            objects.put(f"a/{i}", [b"x"])
        stop.set()
        assert all(reader.result() for reader in readers)
    assert len(list(objects.list("a/"))) == 20


def test_the_check_of_the_settings_tries_the_bucket_and_says_what_is_wrong(s3_server, tmp_path, prefix):
    def checked(**objects) -> Finding:
        given = {"url": f"s3://{BUCKET}/{prefix}", "endpoint": s3_server.endpoint, "region": "us-east-1", **objects}
        settings = Settings(data_dir=tmp_path, objects=given)
        return {finding.what: finding for finding in run_checks(settings)}["object store"]

    keys = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}

    right = checked(**keys)
    assert right.ok, right.found
    wrong = checked(**{**keys, "secret_access_key": "a-wrong-secret"})
    assert not wrong.ok
    assert "refuses the credentials" in wrong.found
    assert "a-wrong-secret" not in f"{wrong}"


def test_processes_that_share_a_cache_that_is_too_small_read_nothing_wrong(s3_server, tmp_path, objects):
    """Each maps what it reads for a while, as the others download and drop."""
    digests = {}
    for i in range(20):
        data = write_sections("test", meta={"number": i}, arrays={"x": np.full(5_000, i, "<u4")})
        objects.put(f"a/{i}", data)
        digests[f"a/{i}"] = digest(b"".join(data))
    command = [
        sys.executable,
        "-c",
        SHARER,
        str(Path(__file__).parents[2]),
        s3_server.endpoint,
        str(tmp_path / "other"),
    ]
    command += [objects._store.prefix, json.dumps(digests)]
    sharers = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for seed in range(3)
    ]
    told = [sharer.communicate(timeout=120)[0] for sharer in sharers]
    assert [sharer.returncode for sharer in sharers] == [0, 0, 0], told
    left = [path for path in (tmp_path / "other").rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    assert len(left) < 15  # of 20: it was dropped from; nothing is mapped any more


SHARER = """
import json, random, sys
from collections import deque
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from penstock.storage.errors import NotFound
from penstock.storage.segments.sections import open_sections
from tests.s3_server import open_objects

endpoint, folder, prefix, digests, seed = sys.argv[2:]
digests, chance, mapped = json.loads(digests), random.Random(int(seed)), deque(maxlen=3)
objects = open_objects(endpoint, Path(folder), prefix=prefix, capacity_bytes=150_000)  # seven of twenty
for _ in range(150):
    name = chance.choice(sorted(digests))
    while True:
        try:
            sections = open_sections(objects.local_path(name, blake2b=digests[name]), kind="test")
            break
        except NotFound:  # dropped between the two calls
            continue
    mapped.append((name, sections))
    for name, sections in mapped:
        sections.verify()
        assert name == f"a/{sections.meta['number']}" == f"a/{sections.arrays['x'][-1]}"
"""
