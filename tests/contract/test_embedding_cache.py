"""What the cache promises, with a fake server and a real one: counts, its limit, one payment for each text."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import fakeredis
import numpy as np
import pytest
import redis

from penstock.pipeline.embedding import EmbeddingOptions, open_embedder
from penstock.pipeline.embedding.cached import embed_with_cache
from penstock.pipeline.errors import ProviderUnavailable
from penstock.storage.cache import CacheServer, CacheUse, EmbeddingCache, read_total, read_use, text_digest
from penstock.storage.cache.patience import LONGEST_S
from penstock.storage.ids import TenantId

from ..cached_texts import ACME, DIMENSIONS, MODEL, TOKENS, USD_PER_TOKEN, get, open_cache, put, some, wanted

OTHER = TenantId("other")
LIMIT_BYTES = 100_000  # about 57 vectors
SOON_S = 0.3


@pytest.fixture(params=["fake", "valkey"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    if request.param == "fake":
        with fakeredis.FakeRedis(server=request.getfixturevalue("fake_server")) as connected:
            yield connected
    else:
        with redis.Redis.from_url(request.getfixturevalue("valkey_url")) as connected:
            connected.flushall()
            yield connected


def vectors_in(client: redis.Redis) -> int:
    return sum(1 for _ in client.scan_iter("penstock:embedding:*"))


class Embedding:
    """A model that counts its calls, and waits in each of them until it is let go."""

    def __init__(self) -> None:
        self._embedder = open_embedder(MODEL, EmbeddingOptions())
        self.card = self._embedder.card
        self.asked: list[str] = []
        self.fails = False
        self.entered, self.go_on = threading.Event(), threading.Event()

    def embed_passages(self, texts):
        self.asked += texts
        self.entered.set()
        assert self.go_on.wait(30)
        if self.fails:
            raise ProviderUnavailable("gone")
        return self._embedder.embed_passages(texts)

    def __getattr__(self, name):
        return getattr(self._embedder, name)


class Rests:
    """A clock that only a rest moves on."""

    def __init__(self, on_rest: Callable[[], None] = lambda: None) -> None:
        self.now = 0.0
        self.on_rest = on_rest

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_rest()


# -- counts


def test_a_tenant_s_counts_are_its_own_and_the_total_is_of_all(client):
    cache = open_cache(client)
    digests, vectors = some(4)
    put(cache, wanted(digests[:3]), vectors[:3])
    get(cache, wanted(digests))
    put(cache, wanted(digests[:1], tenant=OTHER), vectors[:1])

    acme, other, total = read_use(client, ACME), read_use(client, OTHER), read_total(client)

    assert (acme.hits, acme.misses, acme.vectors) == (3, 3, 3)
    assert (acme.saved_tokens, acme.saved_usd) == (3 * TOKENS, 3 * TOKENS * USD_PER_TOKEN)
    assert (other.hits, other.misses, other.vectors, other.saved_usd) == (0, 1, 1, 0.0)
    assert (total.hits, total.misses, total.vectors) == (3, 4, 4)
    assert total.size_bytes == acme.size_bytes + other.size_bytes > 4 * 4 * DIMENSIONS
    assert acme.since is not None
    assert read_use(client, TenantId("third")) == CacheUse()


def test_a_text_counts_as_often_as_it_occurs(client):
    cache, embedder = open_cache(client), Embedding()
    embedder.go_on.set()
    tokens = np.array([1, 2, 1, 4])

    embed_with_cache(embedder, cache, ACME, ["a", "b", "a", "c"], tokens=tokens)
    assert (read_use(client, ACME).hits, read_use(client, ACME).misses) == (0, 4)
    looked = embed_with_cache(embedder, cache, ACME, ["a", "b", "a", "c"], tokens=tokens)

    assert (looked.hits, looked.asked) == (4, [])
    assert (read_use(client, ACME).hits, read_use(client, ACME).saved_tokens) == (4, 8)


def test_shared_vectors_are_nobody_s_and_hits_are_still_the_tenant_s(client):
    cache = open_cache(client, shared=True)
    digests, vectors = some(2)
    put(cache, wanted(digests), vectors)
    get(cache, wanted(digests, tenant=OTHER))

    assert (read_use(client, OTHER).hits, read_use(client, ACME).misses) == (2, 2)
    assert (read_use(client, OTHER).size_bytes, read_use(client, ACME).size_bytes) == (0, 0)
    assert read_total(client).vectors == 2


def test_a_damaged_entry_is_counted_and_replaced(client):
    cache = open_cache(client)
    digests, vectors = some(3)
    put(cache, wanted(digests), vectors)
    before = read_use(client, ACME)
    key = next(client.scan_iter(f"*{digests[1].hex()}"))
    client.set(key, b"\0" * 8)

    put(cache, wanted(digests), vectors)
    found, known = get(cache, wanted(digests))

    assert known.all()
    np.testing.assert_array_equal(found, vectors)
    after = read_use(client, ACME)
    assert (after.damaged, after.misses, after.vectors) == (1, 4, 3)
    assert after.size_bytes == before.size_bytes


def test_counting_takes_no_round_trip_for_each_text(client, monkeypatch):
    cache = open_cache(client)
    digests, vectors = some(200)
    put(cache, wanted(digests), vectors)
    commands = []
    execute = client.execute_command
    monkeypatch.setattr(
        client, "execute_command", lambda *words, **rest: (commands.append(words[0]), execute(*words, **rest))[1]
    )

    get(cache, wanted(digests))

    assert commands == ["MGET", "EVALSHA"]


# -- the limit


def test_above_the_limit_what_was_used_least_lately_goes_first(client):
    cache = open_cache(client, limit_bytes=LIMIT_BYTES)
    old, vectors = some(40)
    put(cache, wanted(old), vectors)
    get(cache, wanted(old[:10]))
    for first in range(1000, 1040, 10):
        put(cache, wanted(some(10, first=first)[0]), vectors[:10])

    total = read_total(client)
    known = get(cache, wanted(old))[1]

    assert total.size_bytes <= LIMIT_BYTES
    assert total.evicted == 80 - total.vectors > 10
    assert known[:10].all()
    assert not known[10:].all()
    assert get(cache, wanted(some(10, first=1030)[0]))[1].all()


def test_a_limit_that_was_lowered_is_kept_from_the_next_look_up_on(client):
    put(open_cache(client), *_wanted_and_vectors(100))
    cache = open_cache(client, limit_bytes=LIMIT_BYTES)

    get(cache, wanted(some(1, first=5000)[0]))

    total = read_total(client)
    assert total.size_bytes <= LIMIT_BYTES
    assert vectors_in(client) == total.vectors > 40


def test_one_vector_above_the_limit_leaves_nothing_behind(client):
    cache = open_cache(client, limit_bytes=1000)
    digests, vectors = some(1)

    put(cache, wanted(digests), vectors)

    assert (vectors_in(client), read_total(client).size_bytes, read_use(client, ACME).vectors) == (0, 0, 0)


def test_what_the_server_forgot_on_its_own_is_no_longer_counted(client):
    cache = open_cache(client)
    digests, vectors = some(20)
    put(cache, wanted(digests), vectors)
    client.delete(*client.keys("penstock:embedding:*"))

    get(cache, wanted(some(1, first=5000)[0]))

    total = read_total(client)
    assert (total.vectors, total.size_bytes, total.evicted) == (0, 0, 0)


def test_no_other_key_of_the_server_is_touched(client):
    client.rpush("embed", b"a message of the queue")
    client.set("penstock:embedding-of-somebody-else", b"1")
    cache = open_cache(client, limit_bytes=LIMIT_BYTES)
    for first in range(0, 400, 50):
        put(cache, wanted(some(50, first=first)[0]), some(50)[1])

    assert client.lrange("embed", 0, -1) == [b"a message of the queue"]
    assert client.get("penstock:embedding-of-somebody-else") == b"1"
    lasting = {key for key in client.keys("*") if client.ttl(key) == -1}
    uses = {b"penstock:embedding-use", b"penstock:embedding-use:tenant/acme"}
    assert lasting == {b"embed", b"penstock:embedding-of-somebody-else", b"penstock:embedding-index"} | uses


def _wanted_and_vectors(count: int):
    digests, vectors = some(count)
    return wanted(digests), vectors


# -- one payment for each text


def test_a_text_that_another_embeds_is_neither_here_nor_mine_until_it_lands(client):
    mine, theirs = open_cache(client), open_cache(client)
    digests, vectors = some(3)
    with mine.look_up(wanted(digests[:2])) as look:
        assert look.mine.all()
        with theirs.look_up(wanted(digests)) as other:
            assert (other.found.tolist(), other.mine.tolist()) == ([False] * 3, [False, False, True])
        look.land(vectors[:2])

    found, known = get(theirs, wanted(digests[:2]))
    assert known.all()
    np.testing.assert_array_equal(found, vectors[:2])
    assert not client.keys("penstock:embedding-holder:*")


def test_a_text_that_lands_between_the_reading_and_the_asking_is_not_paid_for_again(client, monkeypatch):
    digests, vectors = some(1)
    server = CacheServer(client, ttl_s=60, limit_bytes=1 << 30)
    read = server.read

    def read_and_be_late(names):
        found = read(names)
        put(open_cache(client), wanted(digests), vectors)
        return found

    monkeypatch.setattr(server, "read", read_and_be_late)
    with EmbeddingCache(server).look_up(wanted(digests)) as look:
        assert (look.found.tolist(), look.mine.tolist()) == ([False], [False])
    assert get(open_cache(client), wanted(digests))[1].all()


def test_tenants_do_not_wait_for_each_other_s_texts(client):
    cache = open_cache(client)
    digests, _ = some(2)
    with cache.look_up(wanted(digests)):
        assert cache.look_up(wanted(digests, tenant=OTHER)).mine.all()


def test_two_workers_at_once_pay_for_a_text_once(client):
    first, second = Embedding(), Embedding()
    second.go_on.set()
    found = {}

    def work(name: str, embedder: Embedding, cache: EmbeddingCache, texts: list[str]) -> None:
        found[name] = embed_with_cache(embedder, cache, ACME, texts)

    one = threading.Thread(target=work, args=("one", first, open_cache(client), ["a", "b", "c"]))
    one.start()
    assert first.entered.wait(30)
    rests = Rests(on_rest=first.go_on.set)
    patient = open_cache(client, sleep=lambda seconds: (rests.sleep(seconds), one.join(30)))
    work("two", second, patient, ["b", "d", "c", "b"])
    one.join(30)

    assert (first.asked, second.asked) == (["a", "b", "c"], ["d"])
    assert (found["two"].hits, list(found["two"].asked)) == (3, [1])
    np.testing.assert_array_equal(found["two"].vectors, second._embedder.embed_passages(["b", "d", "c", "b"]))
    assert read_use(client, ACME).misses == 4


def test_whoever_waits_embeds_what_the_other_could_not(client):
    failing, waiting = Embedding(), Embedding()
    failing.fails = True
    waiting.go_on.set()
    errors = []

    def fail() -> None:
        try:
            embed_with_cache(failing, open_cache(client), ACME, ["a"])
        except ProviderUnavailable as error:
            errors.append(error)

    one = threading.Thread(target=fail)
    one.start()
    assert failing.entered.wait(30)
    looked = embed_with_cache(
        waiting, open_cache(client, sleep=lambda _: (failing.go_on.set(), one.join(30))), ACME, ["a"]
    )

    assert (looked.hits, waiting.asked, len(errors)) == (0, ["a"], 1)


def test_a_server_that_forgets_everything_meanwhile_costs_a_payment_and_nothing_else(client):
    slow, quick = Embedding(), Embedding()
    quick.go_on.set()
    found = []
    one = threading.Thread(target=lambda: found.append(embed_with_cache(slow, open_cache(client), ACME, ["a", "b"])))
    one.start()
    assert slow.entered.wait(30)
    client.flushall()
    found.append(embed_with_cache(quick, open_cache(client), ACME, ["b", "a"]))
    slow.go_on.set()
    one.join(30)

    assert (slow.asked, quick.asked) == (["a", "b"], ["b", "a"])
    np.testing.assert_array_equal(found[0].vectors, found[1].vectors[::-1])
    assert read_total(client).vectors == 2


def test_a_holder_that_gives_no_sign_of_life_is_waited_for_no_longer_than_its_lease(client):
    digests, _ = some(1)
    dead = open_cache(client, lease_s=SOON_S).look_up(wanted(digests))  # no block is entered: nobody renews
    assert dead.mine.all()
    rests = 0

    waiting = open_cache(client)
    patience = waiting.patience(paid=True)
    while not waiting.look_up(wanted(digests)).mine.all():
        assert not patience.over
        patience.rest()
        rests += 1

    assert rests > 0


def test_a_holder_that_lives_is_waited_for_beyond_its_lease(client):
    digests, vectors = some(1)
    cache = open_cache(client, lease_s=SOON_S)
    with cache.look_up(wanted(digests)) as look:
        key = f"penstock:embedding-holder:{look.token}"
        renewed, last_ms = 0, client.pttl(key)
        while renewed < 5:  # more than one lease
            now_ms = client.pttl(key)
            renewed += now_ms > last_ms
            last_ms = now_ms
        assert not cache.look_up(wanted(digests)).mine.any()
        look.land(vectors)


@pytest.mark.parametrize(("price", "until_s"), [(0.0, 2.0), (0.02, 3.0), (None, 3.0)])
def test_patience_with_a_holder_that_lives_and_never_lands_has_an_end(client, price, until_s):
    rests, embedder = Rests(), Embedding()
    embedder.card = replace(embedder.card, price_per_million_tokens=price)
    embedder.go_on.set()
    impatient = open_cache(client, patience_s=3.0, free_patience_s=2.0, clock=rests, sleep=rests.sleep)
    with open_cache(client).look_up(wanted([text_digest("a")])):
        looked = embed_with_cache(embedder, impatient, ACME, ["a"])

    assert (looked.hits, embedder.asked) == (0, ["a"])
    assert until_s <= rests.now <= until_s + LONGEST_S
