"""The processes of this machine: all of them with `up`, or one in the foreground for a process manager of your own."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .exits import UsageError
from .options import Config, DataDir

if TYPE_CHECKING:
    from penstock.settings.model import Settings

WORKER_ROLES = ("chunk", "embed", "express", "index", "search", "maintenance")
EMBEDDING_ROLES = frozenset({"api", "embed", "express", "search"})

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on (api.host).")]
Port = Annotated[
    int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on (api.port); 0: a free one.")
]


def register(app: typer.Typer) -> None:
    for name, command in (("up", up), ("serve", serve), ("worker", worker), ("beat", beat), ("flower", flower)):
        app.command(name)(command)
    app.command("migrate")(migrate)


def up(
    config: Config = None,
    data_dir: DataDir = None,
    host: Host = None,
    port: Port = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Run this role alone; may be repeated.")] = None,
    without: Annotated[list[str] | None, typer.Option("--without", help="Leave a role out; may be repeated.")] = None,
    flower: Annotated[bool, typer.Option("--flower", help="Run Flower, the queue's web page, too.")] = False,
    new_admin_key: Annotated[bool, typer.Option("--new-admin-key", help="Replace the admin key.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write the log as one JSON object per line.")] = False,
) -> None:
    """Run everything on this machine until Ctrl-C.

    Roles: api, chunk, embed, express, index, search, maintenance, beat. The dead are restarted. The first start prints
    the admin key, once. Without a broker URL a private queue server is run, too.
    """
    from ..supervisor import Supervisor
    from ..supervisor.installation import check_model
    from ..supervisor.logs import LogStream
    from ..supervisor.roles import chosen_roles
    from .welcome import announcer

    overrides = {"data_dir": data_dir, "api.host": host, "api.port": port}
    settings = _settings(config, overrides)
    names = chosen_roles(only=only or (), without=without or (), flower=flower)
    if not EMBEDDING_ROLES.isdisjoint(names):
        check_model(settings)
    as_json = as_json or settings.log.format == "json"
    log = LogStream(sys.stdout, as_json=as_json, coloured=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    Supervisor(
        settings,
        names=names,
        environment=_environment(config, settings, {**overrides, "log.format": "json" if as_json else None}),
        log=log,
        announce=announcer(settings, log, as_json=as_json),
        new_key=_new_key(settings) if new_admin_key else None,
    ).run()


def serve(
    config: Config = None,
    data_dir: DataDir = None,
    host: Host = None,
    port: Port = None,
    fd: Annotated[int | None, typer.Option("--fd", hidden=True, help="Listening socket to inherit.")] = None,
) -> None:
    """Run the HTTP interface in the foreground."""
    from .serving import run

    run(_settings(config, {"data_dir": data_dir, "api.host": host, "api.port": port}), fd=fd)


def worker(
    role: Annotated[str, typer.Argument(help=f"One of {', '.join(WORKER_ROLES)}.", show_default=False)],
    config: Config = None,
    data_dir: DataDir = None,
    shard: Annotated[
        list[int] | None, typer.Option("--shard", min=0, help="index: write this shard only; may be repeated.")
    ] = None,
) -> None:
    """Run one worker role in the foreground."""
    if role not in WORKER_ROLES:
        raise UsageError(f"there is no role {role!r}: choose one of {', '.join(WORKER_ROLES)}")
    _become(role, config, data_dir, [word for number in shard or () for word in ("--shard", str(number))])


def beat(config: Config = None, data_dir: DataDir = None) -> None:
    """Run the clock in the foreground.

    It dispatches, reconciles and expires. One per installation is enough.
    """
    _become("beat", config, data_dir)


def flower(config: Config = None, data_dir: DataDir = None) -> None:
    """Run Flower, the queue's web page, in the foreground.

    Read-only, behind a password, on loopback unless the settings say otherwise.
    """
    _become("flower", config, data_dir)


def migrate(config: Config = None, data_dir: DataDir = None) -> None:
    """Bring the catalog's schema to this program's. `penstock up` does so by itself."""
    from ..supervisor.installation import migrate_catalog

    migrate_catalog(_settings(config, {"data_dir": data_dir}))
    typer.echo("the catalog is up to date")


def _settings(config: Path | None, overrides: dict[str, Any]) -> "Settings":
    from penstock.settings.sources import load

    return load(config, overrides)


def _environment(config: Path | None, settings: "Settings", overrides: dict[str, Any]) -> dict[str, str]:
    """Return the environment that gives a subprocess the settings this process has, in whatever directory it starts."""
    from penstock.settings.sources import as_environment, settings_file

    file = settings_file(config)
    named = {"PENSTOCK_CONFIG": str(file)} if file else {}
    overrides = {**overrides, "data_dir": str(settings.data_dir)}
    return {**os.environ, **named, **as_environment(overrides), "PYTHONUNBUFFERED": "1"}


def _become(role: str, config: Path | None, data_dir: Path | None, more: list[str] | None = None) -> None:
    """Turn this process into the role's, so that signals reach it without a middleman."""
    from ..supervisor.roles import role as role_of

    overrides = {"data_dir": data_dir}
    settings = _settings(config, overrides)
    started = role_of(role, settings)
    environment = {**started.environment, **_environment(config, settings, overrides)}
    os.execve(started.command[0], [*started.command, *(more or [])], environment)  # noqa: S606 our own program


def _new_key(settings: "Settings") -> str:
    import secrets

    if settings.admin_key is not None:
        raise UsageError("the admin key comes from the settings (admin_key): change it there")
    return f"pk_admin_{secrets.token_urlsafe(32)}"
