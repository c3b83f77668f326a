"""The command line, `penstock`: the operations of the HTTP interface for people, and the processes of this machine.

Must not import what a command needs before that command runs: `penstock --help` answers at once.
"""

import os
import sys


def main() -> None:
    """Run one command and exit with its code: see `exits.ExitCode`."""
    try:
        _run()
    except KeyboardInterrupt:  # before the command could begin, or say more itself
        sys.exit(130)


def _run() -> None:
    try:
        import typer  # noqa: F401
    except ImportError:
        sys.exit("error: the command line is not installed; install it with: pip install 'penstock[all]'")
    from .application import app
    from .exits import report

    try:
        app()
    except Exception as error:
        if os.environ.get("PENSTOCK_DEBUG"):
            raise
        sys.exit(report(error, as_json="--json" in sys.argv))
