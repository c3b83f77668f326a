"""Flower, the queue's own web page: behind a password, read-only, on loopback unless the settings say otherwise.

Tasks carry ids only and the search role sends no events, so the page has no tenant's text to show.
"""

import logging
import signal
from importlib import import_module
from typing import Any

from penstock.settings import logs
from penstock.settings.keys import flower_password
from penstock.settings.model import Settings
from penstock.settings.wiring import make_data_dir

from .app import make_app
from .errors import MissingProgram

log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Serve the page until SIGTERM or SIGINT, and return the exit status.

    Raises:
        MissingProgram: Flower is not installed.
    """
    try:
        command = import_module("flower.command")
    except ImportError as error:
        raise MissingProgram("Flower is not installed; install it with: pip install 'penstock[flower]'") from error
    logs.configure(settings.log, role="flower")
    make_data_dir(settings)
    _lock_metrics()
    _set_options(command.options, settings)
    command.extract_settings()
    server = command.Flower(capp=make_app(settings), options=command.options, **command.settings)
    signal.signal(signal.SIGTERM, command.sigterm_handler)
    port = server.start_http_server()
    log.info("Flower is at http://%s:%d for user %s.", settings.flower.host, port, settings.flower.user)
    try:
        server.start()
    except (KeyboardInterrupt, SystemExit):
        server.stop()
    return 0


def _lock_metrics() -> None:
    """Ask for the password at /metrics too, which Flower 2.2 leaves open to everyone."""
    handler = import_module("flower.views.monitor").Metrics
    handler.get = import_module("tornado.web").authenticated(handler.get)


def _set_options(options: Any, settings: Settings) -> None:
    """Set Flower's options in memory: a command line or an environment could be read, or changed, from outside."""
    options.address = settings.flower.host
    options.port = settings.flower.port
    options.basic_auth = [f"{settings.flower.user}:{flower_password(settings)}"]
    options.read_only = True
    options.persistent = False  # it would write its database into the current directory
