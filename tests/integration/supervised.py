"""Runs a supervisor over small stand-ins for the roles. Each notes in ``stops`` when it was asked to stop."""

import sys
import time
from pathlib import Path

from penstock.api.supervisor import StartFailed, Supervisor, running
from penstock.api.supervisor.logs import LogStream
from penstock.api.supervisor.roles import Role
from penstock.settings.model import Settings, Workers

GOOD = """
import signal, sys, time
def stop(*_):
    open("stops", "a").write(f"{name}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("up and running", flush=True)
while True:
    time.sleep(0.05)
"""
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"not now\\n"))
print("up and running", flush=True)
while True:
    time.sleep(0.05)
"""
BROKEN = """
print("cannot find my model", flush=True)
raise SystemExit(3)
"""
API = """
import http.server, signal, socket, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"ok": true, "reasons": []}')
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=int(sys.argv[1]))
def stop(*_):
    open("stops", "a").write("api\\n")
    threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGTERM, stop)
server.serve_forever(poll_interval=0.05)
"""


def role_of(name: str, settings: Settings, *, socket_fd: int | None = None) -> Role:
    del settings
    kinds = dict(word.split("=") for word in sys.argv[3:])
    program = {"good": GOOD, "stubborn": STUBBORN, "broken": BROKEN}[kinds.get(name, "good")]
    if name == "api":
        return Role(name, (sys.executable, "-c", API, str(socket_fd)))
    return Role(name, (sys.executable, "-c", f"name = {name!r}\n{program}"))


def main() -> None:
    """``supervised.py DATA_DIR ROLE,ROLE… [ROLE=good|stubborn|broken …]``"""
    settings = Settings(data_dir=Path(sys.argv[1]), api={"port": 0}, workers=Workers(grace_s=1.5))
    running.STEADY_S = 30.0 if "broken" in " ".join(sys.argv) else 0.3  # who is to fail at the start needs time for it
    began = time.monotonic()
    log = LogStream(sys.stdout, as_json=True, coloured=False, clock=lambda: time.monotonic() - began)
    supervisor = Supervisor(
        settings,
        names=sys.argv[2].split(","),
        environment={"PATH": "/usr/bin:/bin"},
        log=log,
        announce=lambda started: log.say("starting", url=started.url, admin_key=started.admin_key),
        role_of=role_of,
    )
    try:
        supervisor.run()
    except StartFailed as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
