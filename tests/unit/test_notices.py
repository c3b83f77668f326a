"""Notices and presence: heard when the server is there, missed without harm when it is not."""

import json
import queue
import threading
import time
from contextlib import contextmanager

import pytest
import redis

from penstock.storage.ids import GenerationId, TenantId
from penstock.storage.notices import CHANNEL, Notices
from penstock.storage.presence import PREFIX, Presence

TENANT, GENERATION = TenantId("acme"), GenerationId("gen_1")


@contextmanager
def listening(url, **callbacks):
    """A listener in a thread; ends with the block. Leaves when it hears, or when told."""
    stop, notices = threading.Event(), Notices(url)
    thread = threading.Thread(target=notices.listen, args=[callbacks, stop])
    thread.start()
    try:
        yield notices
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()
        notices.close()


@pytest.fixture
def client(valkey_server):
    with redis.Redis.from_url(valkey_server.url) as opened:
        opened.flushall()
        yield opened


def until_subscribed(client) -> None:
    eventually(lambda: client.pubsub_numsub(CHANNEL)[0][1] == 1)


def eventually(holds, *, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.005)


def test_a_listener_hears_of_work_and_of_new_versions(client, valkey_url):
    heard: queue.Queue = queue.Queue()
    with listening(valkey_url, work_ready=lambda: heard.put("work"), published=lambda *given: heard.put(given)):
        until_subscribed(client)
        sender = Notices(valkey_url)
        sender.work_ready()
        sender.published(TENANT, GENERATION, 7)
        assert heard.get(timeout=20) == "work"
        assert heard.get(timeout=20) == ("acme", "gen_1", 7)
        sender.close()


def test_what_a_listener_does_not_know_or_cannot_do_does_not_end_it(client, valkey_url, caplog):
    heard: queue.Queue = queue.Queue()

    def fails() -> None:
        raise LookupError("the callback's own business")

    with listening(valkey_url, work_ready=fails, published=lambda *given: heard.put(given)):
        until_subscribed(client)
        for data in (
            b"\xff",
            b"",
            b"3",
            b"[]",
            b"[[]]",
            b'["published"]',
            b'["published","a",2,"c"]',
            b'["renamed"]',
            b'{"a":1}',
        ):
            client.publish(CHANNEL, data)  # fmt: skip
        client.publish(CHANNEL, json.dumps(["work_ready"]))
        client.publish(CHANNEL, json.dumps(["published", "acme", "gen_1", 1]))
        assert heard.get(timeout=20) == ("acme", "gen_1", 1)
        assert heard.empty()
    assert "What a notice asked for failed" in caplog.text


def test_a_listener_hears_again_after_the_server_was_restarted(valkey_server):
    heard: queue.Queue = queue.Queue()
    with (
        listening(valkey_server.url, work_ready=lambda: heard.put(True)),
        redis.Redis.from_url(valkey_server.url) as own,
    ):
        until_subscribed(own)
        valkey_server.stop()
        valkey_server.start()
        until_subscribed(own)
        sender = Notices(valkey_server.url)
        sender.work_ready()
        assert heard.get(timeout=20)
        sender.close()


def test_sending_to_a_dead_server_raises_nothing_and_is_not_tried_at_every_call(tmp_path, monkeypatch):
    now = [0.0]
    notices = Notices(f"unix://{tmp_path}/nobody", clock=lambda: now[0])
    tried = []
    connected = notices._connected
    monkeypatch.setattr(notices, "_connected", lambda: tried.append(True) or connected())
    for _ in range(5):
        notices.work_ready()
        notices.published(TENANT, GENERATION, 1)
    assert len(tried) == 1
    now[0] += 2
    notices.work_ready()
    assert len(tried) == 2
    notices.close()


def test_a_server_that_died_since_is_no_error_either(valkey_server):
    notices = Notices(valkey_server.url)
    notices.work_ready()
    valkey_server.stop()
    try:
        notices.work_ready()
    finally:
        valkey_server.start()
        notices.close()


def test_without_a_server_notices_do_nothing():
    with listening(None) as notices:
        notices.work_ready()
        notices.published(TENANT, GENERATION, 1)


def test_a_process_that_beats_is_listed_with_what_it_does(client):
    Presence(client, clock=lambda: 50.0).beat("embed", {"progress_at": 49.0, "doing": 3, "model": "minilm"})
    Presence(client, clock=lambda: 60.0).beat("beat", {"progress_at": None, "doing": 0})
    beat, embed = Presence(client).roles()
    assert (embed.role, embed.started_at, embed.seen_at, embed.progress_at, embed.doing) == (
        "embed", 50.0, 50.0, 49.0, "3 tasks")  # fmt: skip
    assert (beat.role, beat.progress_at, beat.doing) == ("beat", None, None)
    assert beat.pid == embed.pid > 0
    assert beat.host


def test_a_process_beats_many_times_and_is_listed_once(client):
    now = [1.0]
    presence = Presence(client, clock=lambda: now[0])
    for _ in range(3):
        presence.beat("index", {"doing": "merging"})
        now[0] += 5
    (info,) = presence.roles()
    assert (info.started_at, info.seen_at, info.doing) == (1.0, 11.0, "merging")


def test_a_process_that_stopped_beating_is_forgotten(client):
    Presence(client, ttl_s=0.05).beat("chunk")
    presence = Presence(client)
    eventually(lambda: presence.roles() == [])
    assert client.scard(PREFIX) == 0


def test_what_another_program_version_wrote_is_left_out(client):
    presence = Presence(client)
    presence.beat("chunk")
    for key, value in (("a", "{}"), ("b", "nonsense"), ("c", '["list"]')):
        client.set(key, value)
        client.sadd(PREFIX, key)
    assert [info.role for info in presence.roles()] == ["chunk"]


def test_a_beat_that_nobody_receives_raises_nothing_but_asking_does(tmp_path):
    with redis.Redis.from_url(f"unix://{tmp_path}/nobody") as nobody:
        presence = Presence(nobody)
        presence.beat("chunk")
        with pytest.raises(redis.ConnectionError):
            presence.roles()
