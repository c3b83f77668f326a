"""Runs the HTTP interface in this process. Decides nothing: the application is `penstock.api.http.app`."""

import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from penstock.settings import logs
from penstock.settings.model import Settings

from ..supervisor.sockets import listening_socket, url_of

GRACE_S = 5

log = logging.getLogger("penstock.api")


def run(settings: Settings, *, fd: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT. ``fd``: a listening socket that `penstock up` opened.

    Raises:
        StartFailed: the port cannot be listened on.
    """
    from ..http.app import make_app

    logs.configure(settings.log, role="api")
    listener = socket.socket(fileno=fd) if fd is not None else listening_socket(settings.api.host, settings.api.port)
    app = make_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        backlog=1024,
    )
    log.info("listening on %s", url_of(listener))
    _Server(config, ends=lambda: app.state.components and app.state.components.feeds.close()).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends streams of events at the first signal, which it would else wait for until the grace is over."""

    def __init__(self, config: uvicorn.Config, *, ends: Callable[[], object]) -> None:
        super().__init__(config)
        self._ends = ends

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._ends()
