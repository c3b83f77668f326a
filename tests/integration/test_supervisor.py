"""`penstock up` as seen from outside: real processes, real signals, a real queue server; the roles are stand-ins."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from penstock.api.supervisor.errors import StartFailed
from penstock.api.supervisor.lock import only_one
from penstock.api.supervisor.sockets import listening_socket, url_of

SCRIPT = Path(__file__).with_name("supervised.py")
ALL = "api,chunk,embed,index,search,maintenance,beat"
WAIT_S = 90.0  # other tests run at the same time


class Up:
    """A running supervisor, its log as objects."""

    def __init__(self, data_dir: Path, roles: str, *kinds: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(data_dir), roles, *kinds],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=data_dir.parent,
        )
        self.seen: list[dict] = []
        self._roles = set(roles.split(",")) - {"api"}
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def until(self, message: str, *, role: str | None = None, times: int = 1) -> dict:
        """Return the ``times``-th next line that has ``message`` in it."""
        deadline = time.monotonic() + WAIT_S
        while True:
            line = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            assert line is not None, f"ended before {message!r}: {self.seen} {self.process.stderr.read()}"
            entry = json.loads(line)
            self.seen.append(entry)
            times -= message in entry["message"] and role in (None, entry["role"])
            if times == 0:
                return entry

    def ready(self) -> dict:
        """Return the line that says so, when each role has begun to listen to signals too."""
        said = self.until("ready in")
        while not self._roles <= {each["role"] for each in self.seen if "up and running" in each["message"]}:
            self.until("up and running")
        return said

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        status = self.process.wait(WAIT_S)
        self._reader.join()
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(roles: str, *kinds: str) -> Up:
        started.append(Up(tmp_path / "data", roles, *kinds))
        return started[-1]

    yield begin
    for up in started:
        up.close()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + WAIT_S
    while any(runs(pid) for pid in pids):
        assert time.monotonic() < deadline, [pid for pid in pids if runs(pid)]
        time.sleep(0.02)


def test_it_answers_when_it_is_ready_and_stops_beat_first_and_the_queue_last(start, tmp_path):
    up = start(ALL)
    starting = up.until("starting")
    ready = up.ready()
    while sum(entry["message"] == "up and running" for entry in up.seen) < 6:
        up.until("up and running")

    with urllib.request.urlopen(f"{ready['url']}/readyz", timeout=10) as answer:
        assert answer.status == 200
    data_dir = tmp_path / "data"
    assert (data_dir / "api.url").read_text().strip() == ready["url"]
    assert (data_dir / "admin.key").read_text().strip() == starting["admin_key"]
    assert (data_dir / "admin.key").stat().st_mode & 0o777 == 0o600
    assert data_dir.stat().st_mode & 0o777 == 0o700
    pids = children(up.process.pid)
    assert len(pids) == 8

    up.send(signal.SIGTERM)

    assert up.ended() == 0
    stops = (tmp_path / "stops").read_text().split()
    assert stops[0] == "beat"
    assert sorted(stops[1:]) == ["api", "chunk", "embed", "index", "maintenance", "search"]
    assert not any(runs(pid) for pid in pids)
    assert not (data_dir / "api.url").exists()
    assert not (data_dir / "valkey" / "valkey.sock").exists()


def test_a_killed_role_comes_back_each_time_after_a_longer_delay(start):
    up = start("beat")
    up.ready()
    for delay in ("0.5", "1", "2"):
        (beat,) = (pid for pid in children(up.process.pid) if "name = 'beat'" in _command(pid))
        os.kill(beat, signal.SIGKILL)
        said = up.until("beat was killed by SIGKILL")
        assert f"again in {delay} s" in said["message"]
        up.until("up and running", role="beat")


def test_the_killed_queue_server_comes_back_with_its_keys(start, tmp_path):
    redis = pytest.importorskip("redis")
    up = start("beat")
    up.ready()
    address = str(tmp_path / "data" / "valkey" / "valkey.sock")
    with redis.Redis(unix_socket_path=address) as client:
        client.set("kept", "1")
        time.sleep(1.1)  # its log reaches the disk every second
        os.kill(client.info("server")["process_id"], signal.SIGKILL)

    up.until("valkey was killed by SIGKILL")

    deadline = time.monotonic() + WAIT_S
    while True:
        with redis.Redis(unix_socket_path=address) as client:
            try:
                assert client.get("kept") == b"1"
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_nothing_outlives_a_killed_supervisor_and_the_next_start_keeps_the_key(start, tmp_path):
    up = start("chunk,beat")
    key = up.until("starting")["admin_key"]
    up.ready()
    pids = children(up.process.pid)
    assert len(pids) == 3

    up.send(signal.SIGKILL)

    wait_until_gone(pids)
    again = start("beat")
    assert again.until("starting")["admin_key"] is None
    again.ready()
    assert (tmp_path / "data" / "admin.key").read_text().strip() == key


def test_a_role_that_does_not_stop_is_killed_after_the_grace_period(start):
    up = start("chunk,beat", "chunk=stubborn")
    up.ready()
    up.send(signal.SIGINT)
    began = time.monotonic()
    up.until("chunk did not stop in time")

    assert up.ended() == 0
    assert time.monotonic() - began > 1.0


def test_a_second_signal_does_not_wait_for_the_grace_period(start):
    up = start("beat", "beat=stubborn")  # beat's grace is 5 s
    up.ready()
    up.send(signal.SIGINT)
    up.until("not now", role="beat")
    began = time.monotonic()
    up.send(signal.SIGINT)

    assert up.ended() == 0
    assert time.monotonic() - began < 4.0


def test_a_role_that_cannot_start_fails_the_start_with_its_last_words(start):
    up = start("chunk,beat", "chunk=broken")

    assert up.ended() == 1
    said = up.process.stderr.read()
    assert "chunk ended 3 times" in said
    assert "cannot find my model" in said
    assert "Traceback" not in said


def test_a_second_supervisor_on_the_same_directory_is_refused_and_names_the_first(start, tmp_path):
    up = start("beat")
    up.until("starting")

    with pytest.raises(StartFailed, match=f"process {up.process.pid}"), only_one(tmp_path / "data"):
        pass


def test_a_port_in_use_is_named_with_what_to_change():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartFailed, match=f"port {port} on 127.0.0.1 is in use.*--port or PENSTOCK_API__PORT"):
            listening_socket("127.0.0.1", port)


def test_a_host_of_another_machine_is_refused():
    with pytest.raises(StartFailed, match=r"api\.host"):
        listening_socket("no-such-host.invalid", 0)
    with pytest.raises(StartFailed, match=r"api\.host"):
        listening_socket("192.0.2.1", 0)


def test_every_interface_is_shown_as_this_machines_address():
    with listening_socket("0.0.0.0", 0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""
