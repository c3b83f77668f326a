"""Brings the schema of a catalog to what this program expects, or says why it cannot.

Revisions are written by hand and never edited once released; a test compares their sum with tables.py.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from ...errors import Unavailable, Unsupported
from ..engine import Catalog

_ADVISORY_LOCK = 0x70656E73746F636B  # "penstock"


def migrate(catalog: Catalog) -> None:
    """Bring the schema up to date, in one transaction. Two processes may call it at once; twice is harmless.

    Raises:
        Unsupported: the schema was made by a newer program.
    """
    config = _config()
    with catalog.write() as connection:
        if catalog.dialect == "postgresql":  # SQLite already holds its only write lock here
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        _current(connection, config)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check_schema(catalog: Catalog) -> None:
    """Return when this program can work with the catalog's schema.

    Raises:
        Unsupported: the schema was made by a newer program.
        Unavailable: the schema is missing or older; `penstock migrate` brings it up to date.
    """
    config = _config()
    with catalog.read() as connection:
        current = _current(connection, config)
    head = ScriptDirectory.from_config(config).get_current_head()
    if current != head:
        found = f"is at revision {current}, this program needs {head}" if current else "has no tables yet"
        raise Unavailable(f"the catalog {found}: run `penstock up` or `penstock migrate` first")


def _current(connection: Connection, config: Config) -> str | None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise Unsupported(f"the catalog's schema {current!r} is newer than this program: upgrade penstock")
    return current


def _config() -> Config:
    here = str(Path(__file__).parent).replace("%", "%%")
    config = Config()
    config.set_main_option("script_location", here)
    config.set_main_option("version_locations", f"{here}/revisions")
    config.set_main_option("path_separator", "newline")  # a folder may have blanks in its name
    return config
