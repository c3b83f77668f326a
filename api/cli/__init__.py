"""The command line, `penstock`: the operations of the HTTP interface for people, and the processes of this machine.

Must not import what a command needs before that command runs: `penstock --help` answers at once.
"""

import os
import sys


def main() -> None:
    """Run one command and exit with its code: see `exits.ExitCode`."""
    try:
        sys.exit(_run(sys.argv[1:]))
    except KeyboardInterrupt:  # before the command could say more itself
        from .exits import report_interrupt

        sys.exit(report_interrupt(sys.argv[1:]))


def _run(words: list[str]) -> int:
    try:
        import typer  # noqa: F401
    except ImportError:
        sys.exit("error: the command line is not installed; install it with: pip install 'penstock[all]'")
    from .application import app
    from .exits import ExitCode, is_typers, report, wants_json

    try:
        # Standing alone, Typer would write its errors itself, in its own form only.
        status = app(prog_name="penstock", standalone_mode=False)
    except Exception as error:
        if os.environ.get("PENSTOCK_DEBUG") and not is_typers(error):
            raise
        return report(error, as_json=wants_json(words))
    if status == ExitCode.INTERRUPTED:  # Typer's word for Ctrl-C
        raise KeyboardInterrupt
    return int(status or 0)
