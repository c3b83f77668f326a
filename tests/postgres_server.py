"""A private PostgreSQL server for tests: started in a folder of its own, on a socket only, gone at the end."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

UNPRIVILEGED = ("postgres", "nobody")


class NoServer(Exception):
    """Raised when no PostgreSQL can be started here; says why."""


class PostgresServer:
    """One cluster. ``url`` names its maintenance database; the user may create others."""

    def __init__(self) -> None:
        initdb, postgres = _program("initdb"), _program("postgres")
        self._account = _account()
        self._folder = Path(
            tempfile.mkdtemp(prefix="penstock-pg-")
        )  # short: a socket's path has at most 107 characters
        if self._account:
            os.chown(self._folder, self._account["user"], self._account["group"])
        data = self._folder / "data"
        made = ("-D", data, "-U", "penstock", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        subprocess.run([initdb, *made], check=True, capture_output=True, cwd=self._folder, **self._account)
        quick = ("-c", "fsync=off", "-c", "shared_buffers=32MB", "-c", "max_connections=60")
        local = ("-k", self._folder, "-c", "listen_addresses=")
        self._log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            [postgres, "-D", data, *local, *quick],
            cwd=self._folder,
            stdout=self._log,
            stderr=self._log,
            **self._account,
        )
        self.url = f"postgresql://penstock@/postgres?host={self._folder}"
        self._wait_until_ready()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    told = (self._folder / "log").read_text()
                    self.stop()
                    raise NoServer(f"PostgreSQL did not start: {told}") from error
                time.sleep(0.05)
            else:
                return


def _program(name: str) -> str:
    found = shutil.which(name) or next((str(path) for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    if found is None:
        raise NoServer(f"no {name} on PATH")
    return found


def _account() -> dict[str, Any]:
    """Return the arguments that make a subprocess run as someone else: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise NoServer("PostgreSQL does not run as root, and there is no other account")


@contextmanager
def new_database(server_url: str) -> Iterator[str]:
    """Give the URL of an empty database that lasts as long as the block."""
    name = f"penstock_{secrets.token_hex(6)}"
    _command(server_url, f"CREATE DATABASE {name}")
    yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    _command(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def _command(server_url: str, statement: str) -> None:
    plain = make_url(server_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement)
