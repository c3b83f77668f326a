"""What `penstock up` tells the operator once: where it listens, and the admin key when it is new."""

from collections.abc import Callable

from penstock.settings.keys import admin_key_file
from penstock.settings.model import Settings

from ..supervisor.logs import LogStream
from ..supervisor.running import Started
from .output import console


def announcer(settings: Settings, log: LogStream, *, as_json: bool) -> Callable[[Started], None]:
    """Return what `Supervisor` calls when addresses and key are known."""

    def announce(started: Started) -> None:
        if as_json:
            log.say(
                "starting",
                event="starting",
                url=started.url,
                flower_url=started.flower_url,
                data_dir=str(settings.data_dir),
                admin_key=started.admin_key,
            )
        else:
            _show(started, settings)

    return announce


def _show(started: Started, settings: Settings) -> None:
    from rich.panel import Panel
    from rich.text import Text

    text = Text(overflow="fold")  # nothing may be cut off: the key is shown once
    for label, value in _facts(started, settings):
        text.append(f"{label:<10}", style="dim")
        text.append(f"{value}\n")
    if started.admin_key:
        text.append(f"{'admin key':<10}", style="dim")
        text.append(f"{started.admin_key}\n", style="bold yellow")
        text.append(f"\nThe key is shown this once. It is kept in {admin_key_file(settings)} for the command line.")
    text.rstrip()
    console().print(Panel(text, title="Penstock", title_align="left", expand=False))


def _facts(started: Started, settings: Settings) -> list[tuple[str, str]]:
    facts = [("data", str(settings.data_dir))]
    if started.url:
        facts = [("url", started.url), ("api docs", f"{started.url}/docs"), *facts]
    if started.flower_url:
        password = "" if settings.flower.password else f", password in {settings.data_dir / 'flower.password'}"
        facts.append(("flower", f"{started.flower_url} (user {settings.flower.user}{password})"))
    return facts
