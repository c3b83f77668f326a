"""With a server for notices and presence: what the HTTP interface makes of it, and that it does without."""

import subprocess
import time

import pytest
import redis

from penstock.api.supervisor.queue_server import find_program
from penstock.client import NewDocument
from penstock.settings import wiring
from penstock.storage.notices import Notices
from penstock.storage.presence import Presence

from ..http_service import running_service


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Valkey of its own; skipped where there is none."""
    folder = tmp_path_factory.mktemp("valkey")
    url = f"unix://{folder}/s"
    program = [str(find_program()), "--port", "0", "--unixsocket", f"{folder}/s", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL)
    with redis.Redis.from_url(url) as client:
        deadline = time.monotonic() + 20
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline
        yield url, client
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def service(server, tmp_path_factory):
    options = {"broker_url": server[0], "search": {"poll_s": 3600.0}}
    with running_service(tmp_path_factory.mktemp("http"), **options) as running:
        yield running


def test_a_notice_brings_the_new_version_long_before_the_next_poll(service):
    notices = Notices(wiring.redis_url(service.settings))
    with service.penstock() as penstock:
        made = penstock.create_collection("noticed")
        assert penstock.search("noticed", "words").version == 0
        penstock.submit("noticed", [NewDocument(source="a", text="words")])
        service.index()
        generation_id = made.token.rpartition(":")[0]
        deadline = time.monotonic() + 20
        while penstock.search("noticed", "words").version == 0:
            notices.published("default", generation_id, 1)
            assert time.monotonic() < deadline
    notices.close()


def test_status_shows_who_is_there_and_readiness_is_not_degraded(service, server):
    Presence(server[1]).beat("embed", {"doing": 2})
    with service.penstock() as penstock:
        (role,) = penstock.status().roles
    assert (role.role, role.doing) == ("embed", "2 tasks")
    assert service.http.get("/readyz").json() == {"ok": True, "reasons": [], "degraded": []}


def test_a_submission_tells_the_dispatcher(service, server):
    with server[1].pubsub(ignore_subscribe_messages=True) as heard, service.penstock() as penstock:
        heard.subscribe("penstock:notices")
        penstock.create_collection("told")
        deadline, message, number = time.monotonic() + 20, None, 0
        while message is None:  # a notice is a hint: right after a failure none are sent for a second
            number += 1
            penstock.submit("told", [NewDocument(source=str(number), text="x")])
            message = heard.get_message(timeout=0.5)
            assert time.monotonic() < deadline
    assert b"work_ready" in message["data"]
