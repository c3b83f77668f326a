"""The cache of vectors with a real server and real processes: its memory, a holder that is killed, and no server."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import redis

from penstock.api.cli.checks import run_checks
from penstock.settings.model import Settings
from penstock.storage.cache import read_total
from penstock.storage.cache.server import HOLDER

from ..cached_texts import get, open_cache, put, some, wanted
from ..valkey_server import ValkeyServer

LIMIT_BYTES = 8 << 20
HOLD = """
import sys, time
import redis
from tests.cached_texts import open_cache, some, wanted
with open_cache(redis.Redis.from_url(sys.argv[1]), lease_s=1.0).look_up(wanted(some(3)[0])) as look:
    print(int(look.mine.sum()), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def client(valkey_server: ValkeyServer):
    with redis.Redis.from_url(valkey_server.url) as connected:
        connected.execute_command("FLUSHALL", "SYNC")  # else the memory of the test before goes during this one
        yield connected


def test_vectors_survive_the_way_through_a_real_server(client) -> None:
    digests, vectors = some(300, dimensions=384)
    cache = open_cache(client)
    put(cache, wanted(digests, dimensions=384), vectors)

    found, known = get(cache, wanted([*digests, *some(1, first=900)[0]], dimensions=384))

    assert known.tolist() == [True] * 300 + [False]
    np.testing.assert_array_equal(found[:300], vectors)
    assert all(0 < client.ttl(key) <= 60 for key in client.scan_iter("penstock:embedding:*"))
    client.flushall()
    assert not get(cache, wanted(digests, dimensions=384))[1].any()


@pytest.mark.parametrize("dimensions", [256, 384, 1536, 4096])
def test_the_server_s_own_memory_stays_below_the_limit(client, dimensions) -> None:
    cache = open_cache(client, limit_bytes=LIMIT_BYTES)
    get(cache, wanted(some(1, dimensions=dimensions)[0], dimensions=dimensions))  # the script takes some, too
    before_bytes = client.info("memory")["used_memory"]
    for first in range(0, 3 * LIMIT_BYTES // (4 * dimensions), 200):
        digests, vectors = some(200, first=first, dimensions=dimensions)
        put(cache, wanted(digests, dimensions=dimensions), vectors)

    taken_bytes = client.info("memory")["used_memory"] - before_bytes
    total = read_total(client)

    assert total.evicted > 0
    assert total.size_bytes <= LIMIT_BYTES
    assert 0.6 * LIMIT_BYTES < taken_bytes <= LIMIT_BYTES


def test_a_full_server_gives_up_vectors_and_nothing_of_the_queue(client) -> None:
    client.rpush("embed", *[b"a message of the queue"] * 1000)
    client.config_set("maxmemory-policy", "volatile-lru")
    client.config_set("maxmemory", client.info("memory")["used_memory"] + (4 << 20))
    try:
        cache = open_cache(client, limit_bytes=64 << 20)  # more than there is
        for first in range(0, 6000, 200):
            digests, vectors = some(200, first=first, dimensions=384)
            put(cache, wanted(digests, dimensions=384), vectors)
        assert client.llen("embed") == 1000
        assert get(cache, wanted(digests, dimensions=384))[1].any()
        assert client.info("stats")["evicted_keys"] > 0
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")


def test_a_process_that_is_killed_while_it_embeds_is_waited_for_no_longer_than_its_lease(client, valkey_server) -> None:
    root = Path(__file__).parents[2]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, valkey_server.url], stdout=subprocess.PIPE, text=True, cwd=root
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "3\n"
        cache, patience = open_cache(client), open_cache(client).patience(paid=True)
        (key,) = client.keys(f"{HOLDER}*")
        assert not cache.look_up(wanted(some(3)[0])).mine.any()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    began, left_s = time.monotonic(), client.pttl(key) / 1000
    assert left_s <= 1.0

    while not cache.look_up(wanted(some(3)[0])).mine.all():
        assert not patience.over
        patience.rest()

    assert time.monotonic() - began < 30  # of which a second is the lease, and the rest is what this machine takes


def test_a_server_that_goes_away_while_a_text_is_embedded_costs_nothing_but_money(valkey_server) -> None:
    digests, vectors = some(2, first=7000)
    with redis.Redis.from_url(valkey_server.url) as client, open_cache(client).look_up(wanted(digests)) as look:
        assert look.mine.all()
        valkey_server.stop()
        look.land(vectors)
    try:
        with redis.Redis.from_url(valkey_server.url) as client:
            assert open_cache(client).look_up(wanted(digests)).mine.all()
    finally:
        valkey_server.start()


def test_a_server_that_is_not_there_costs_a_miss_and_no_error(tmp_path) -> None:
    digests, vectors = some(1)
    with redis.Redis.from_url(f"unix://{tmp_path}/nobody.sock") as client:
        cache = open_cache(client)
        put(cache, wanted(digests), vectors)

        assert not get(cache, wanted(digests))[1].any()


@pytest.mark.parametrize(
    ("what", "policy", "most_bytes", "told"),
    [
        ("broker", "allkeys-lru", 1 << 30, "set noeviction or volatile-lru"),
        ("broker", "volatile-lru", 1 << 30, None),
        ("cache", "noeviction", 64 << 20, "below embedding.cache_bytes (100.0 MiB)"),
        ("cache", "noeviction", 200 << 20, None),
        ("cache", "volatile-lru", 64 << 20, None),
    ],
)
def test_the_check_refuses_a_server_that_the_cache_and_the_queue_cannot_share(
    client, valkey_server, tmp_path, what, policy, most_bytes, told
) -> None:
    client.config_set("maxmemory-policy", policy)
    client.config_set("maxmemory", most_bytes)
    try:
        embedding = {"model": "hash", "cache_bytes": 100 << 20}
        settings = Settings(data_dir=tmp_path, broker_url=valkey_server.url, embedding=embedding)
        (found,) = [one for one in run_checks(settings) if one.what == what]
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")

    assert found.ok == (told is None)
    assert (told or "answers") in found.found


def test_a_full_server_that_evicts_nothing_still_gives_the_vectors_that_it_has(client) -> None:
    cache = open_cache(client)
    digests, vectors = some(10)
    put(cache, wanted(digests), vectors)
    client.config_set("maxmemory", 1)
    try:
        more, others = some(5, first=100)
        put(cache, wanted(more), others)
        for _ in range(3):
            found, known = get(cache, wanted([*digests, *more]))
            assert known.tolist() == [True] * 10 + [False] * 5
            np.testing.assert_array_equal(found[:10], vectors)
    finally:
        client.config_set("maxmemory", 0)
    put(cache, wanted(more), others)
    assert get(cache, wanted(more))[1].all()
