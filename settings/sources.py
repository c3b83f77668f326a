"""Where settings come from: defaults < penstock.toml < PENSTOCK_* < flags. Remembers the source of every value.

Unknown keys are errors in the file and in the environment alike: a misspelt setting that is ignored is found in
production.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource

from .errors import InvalidSettings
from .model import Settings

FILE_NAME = "penstock.toml"
PREFIX = "PENSTOCK_"
# Read by the command line and by tests, not settings of the installation.
CLIENT_VARIABLES = frozenset(
    {"PENSTOCK_URL", "PENSTOCK_API_KEY", "PENSTOCK_TENANT", "PENSTOCK_CONFIG", "PENSTOCK_DEBUG"}
)
TEST_VARIABLES = ("PENSTOCK_FAILPOINT", "PENSTOCK_TEST_")


@dataclass(frozen=True)
class Explained:
    """One setting: its dotted key, its value as it may be shown, where the value came from, and what it means."""

    key: str
    value: Any
    origin: str
    description: str


def load(
    path: Path | None = None, overrides: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings of this process.

    ``path``: the settings file; else the one PENSTOCK_CONFIG names; else ``penstock.toml`` here, if there is one.
    ``overrides``: values of flags by dotted key (``{"api.port": 7701}``); ``None`` means that the flag was not given.

    Raises:
        InvalidSettings: with every problem found, each naming the file, variable or flag and the key.
    """
    variables = os.environ if environ is None else environ
    file = settings_file(path, environ=variables)
    layers: list[tuple[str, dict[str, Any]]] = []
    problems = list(_unknown_variables(variables))
    if file is not None:
        layers.append((str(file), _read_toml(file)))
        problems += _unknown_keys(layers[0][1], file)
    if problems:
        raise InvalidSettings(problems)
    layers.append(("environment", _from_environment(variables)))
    layers.append(("flag", _nested({key: value for key, value in (overrides or {}).items() if value is not None})))
    return _validated(layers)


def settings_file(path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the settings file that `load` reads, absolute, or None when there is none.

    Raises:
        InvalidSettings: a file was asked for by name and is not there.
    """
    named = path or (environ if environ is not None else os.environ).get("PENSTOCK_CONFIG")
    if not named:
        here = Path(FILE_NAME)
        return here.absolute() if here.is_file() else None
    file = Path(named).expanduser().absolute()
    if not file.is_file():
        raise InvalidSettings([f"{file}: no such settings file; name another with --config, or unset PENSTOCK_CONFIG"])
    return file


def explain(settings: Settings) -> list[Explained]:
    """Return every setting with its origin. Secrets are masked; of a URL only its password is."""
    return [
        Explained(key, _shown(value), settings._origins.get(key, "default"), description)  # noqa: SLF001 our own record
        for key, value, description in _leaves(settings)
    ]


def as_environment(overrides: Mapping[str, Any]) -> dict[str, str]:
    """Return flags by dotted key as the variables that give a subprocess the same settings."""
    return {
        as_variable(key): value if isinstance(value, str) else json.dumps(value, default=str).strip('"')
        for key, value in overrides.items()
        if value is not None
    }


def known_keys(model: type[BaseModel] = Settings) -> dict[str, bool]:
    """Return every dotted key, tables included, and whether it is a table."""
    keys: dict[str, bool] = {}
    for name, field in model.model_fields.items():
        table = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        keys[name] = table
        if table:
            inner = known_keys(cast("type[BaseModel]", field.annotation))
            keys |= {f"{name}.{key}": False for key in inner}
    return keys


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidSettings([f"{file}: cannot be read: {error}"]) from error


def _unknown_keys(values: Mapping[str, Any], file: Path) -> Iterator[str]:
    known = known_keys()
    for key, _value in _flat(values, tables={key for key, table in known.items() if table}):
        if key not in known:
            yield f"{file}: unknown setting {key!r}{_suggestion(key, list(known))}"


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    known = {as_variable(key) for key in known_keys()}
    for name in sorted(environ):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known | CLIENT_VARIABLES or upper.startswith(TEST_VARIABLES):
            continue
        yield f"environment: unknown variable {name}{_suggestion(upper, sorted(known | CLIENT_VARIABLES))}"


def as_variable(key: str) -> str:
    """Return the variable that sets a dotted key."""
    return PREFIX + key.upper().replace(".", "__")


def _suggestion(key: str, known: list[str]) -> str:
    last = {name.rsplit(".", 1)[-1]: name for name in reversed(known)}
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    if not close:  # the right word in the wrong table
        close = [last[word] for word in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(last), n=1, cutoff=0.75)]
    return f"; did you mean {close[0]!r}?" if close else "; `penstock config show` lists all settings"


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    # pydantic-settings reads os.environ itself; give it exactly the variables this call was told to use.
    class Source(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            return {name.lower(): value for name, value in environ.items()}

    try:
        return Source(Settings)()
    except ValueError as error:
        cause = error.__cause__
        raise InvalidSettings([f"environment: {error}{f' ({cause})' if cause else ''}"]) from error


def _validated(layers: list[tuple[str, dict[str, Any]]]) -> Settings:
    tables = {key for key, table in known_keys().items() if table}
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in layers:
        for key, value in _flat(values, tables=tables):
            if key in tables:
                raise InvalidSettings([f"{origin}: {key} is a table of settings, such as [{key}] in {FILE_NAME}"])
            merged[key] = value
            origins[key] = as_variable(key) if origin == "environment" else origin
    try:
        settings = Settings(**_nested(merged))
    except ValidationError as error:
        raise InvalidSettings([_problem(dict(entry), origins) for entry in error.errors()]) from error
    settings._origins.update(origins)  # noqa: SLF001 the frozen model keeps its own history
    return settings


def _problem(entry: dict[str, Any], origins: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in entry["loc"] if isinstance(part, str))
    origin = origins.get(key, "settings")
    message = str(entry["msg"]).removeprefix("Value error, ")
    return f"{origin}: {key}: {message}" if key else f"{origin}: {message}"


def _flat(values: Mapping[str, Any], *, tables: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield leaves by dotted key. An unknown table comes whole, and so does a known table that is not one here."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in tables and isinstance(value, Mapping):
            yield from _flat(value, tables=tables, prefix=f"{key}.")
        else:
            yield key, value


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, name = key.split(".")
        table = result
        for parent in parents:
            table = table.setdefault(parent, {})
        table[name] = value
    return result


def _leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, field.description or ""


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return _masked(value.get_secret_value())
    if isinstance(value, Path):
        return str(value)
    return [_shown(one) for one in value] if isinstance(value, tuple) else value


def _masked(secret: str) -> str:
    if "://" not in secret:
        return "••••••••"
    parts = urlsplit(secret)
    if "@" not in parts.netloc:
        return urlunsplit(parts._replace(query=""))
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:••••••••@{host}", query=""))
