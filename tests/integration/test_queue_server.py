"""The private queue server: what a killed supervisor left behind is stopped, and its data is kept."""

import asyncio
import subprocess
import time

import pytest
import redis

from penstock.api.supervisor.queue_server import answers, clear_socket, make_directories, queue_role
from penstock.settings.model import Settings
from penstock.settings.wiring import embedded_socket, make_data_dir, open_redis


@pytest.fixture
def settings(tmp_path):
    chosen = Settings(data_dir=tmp_path / "d", embedded={"max_memory_bytes": 32 << 20})
    make_data_dir(chosen)
    make_directories(chosen)
    return chosen


@pytest.fixture
def serve(settings):
    started = []

    def start() -> subprocess.Popen:
        started.append(subprocess.Popen(queue_role(settings).command, stdout=subprocess.DEVNULL))
        deadline = time.monotonic() + 20
        while not asyncio.run(answers(embedded_socket(settings))):
            assert started[-1].poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_server_that_was_left_running_is_stopped_and_keeps_its_keys(settings, serve):
    left = serve()
    with open_redis(settings) as client:
        client.set("queue", b"\x00\xff")

    asyncio.run(clear_socket(embedded_socket(settings)))

    assert left.wait(10) == 0
    assert not embedded_socket(settings).exists()
    serve()
    with open_redis(settings) as client:
        assert client.get("queue") == b"\x00\xff"


def test_the_socket_of_a_dead_server_is_removed(settings, serve):
    left = serve()
    left.kill()
    left.wait()
    assert embedded_socket(settings).exists()

    asyncio.run(clear_socket(embedded_socket(settings)))

    assert not embedded_socket(settings).exists()
    asyncio.run(clear_socket(embedded_socket(settings)))  # nothing there: nothing to do


def test_memory_pressure_forgets_cached_values_and_never_the_queue(settings, serve):
    serve()
    with open_redis(settings) as client:
        client.rpush("queue", *(f"message {number}" for number in range(1000)))
        value = b"v" * 64_000
        for number in range(1000):
            client.set(f"cached:{number}", value, ex=3600)
        assert client.info("stats")["evicted_keys"] > 0
        assert client.llen("queue") == 1000
        assert [
            str(value, "ascii") if isinstance(value, bytes) else value for value in client.config_get("port").values()
        ] == ["0"]


def test_the_server_cannot_be_reached_by_another_user(settings, serve):
    serve()
    assert embedded_socket(settings).stat().st_mode & 0o077 == 0
    assert embedded_socket(settings).parent.stat().st_mode & 0o077 == 0


def test_a_client_of_a_server_that_is_not_there_fails_soon(settings):
    began = time.monotonic()
    with open_redis(settings) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    assert time.monotonic() - began < 10
