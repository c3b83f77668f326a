"""Brings the schema of a catalog to what this program expects, or says why it cannot.

Revisions are written by hand and never edited once released; a test compares their sum with tables/. They follow each
other as the numbers do that their files begin with: r0001_initial.py is revision 0001.
"""

from functools import cache
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ...errors import Unavailable, Unsupported
from ..engine import Catalog

_ADVISORY_LOCK = 0x70656E73746F636B  # "penstock"
_VERSION = sa.table("alembic_version", sa.column("version_num"))


def migrate(catalog: Catalog) -> None:
    """Bring the schema up to date, in one transaction. Two processes may call it at once; twice is harmless.

    Raises:
        Unsupported: the schema was made by a newer program.
    """
    # Every process looks at the schema and only one changes it: the others start without loading Alembic.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    here = str(Path(__file__).parent).replace("%", "%%")
    config = Config()
    config.set_main_option("script_location", here)
    config.set_main_option("version_locations", f"{here}/revisions")
    config.set_main_option("path_separator", "newline")  # a folder may have blanks in its name
    with catalog.write() as connection:
        if catalog.dialect == "postgresql":  # SQLite already holds its only write lock here
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        _current(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check_schema(catalog: Catalog) -> None:
    """Return when this program can work with the catalog's schema.

    Raises:
        Unsupported: the schema was made by a newer program.
        Unavailable: the schema is missing or older; `penstock migrate` brings it up to date.
    """
    with catalog.read() as connection:
        current = _current(connection)
    newest = _revisions()[-1]
    if current != newest:
        found = f"is at revision {current}, this program needs {newest}" if current else "has no tables yet"
        raise Unavailable(f"the catalog {found}: run `penstock up` or `penstock migrate` first")


def revision_of(connection: Connection) -> str:
    """Return the revision of the catalog's schema; empty where it has none."""
    return _current(connection) or ""


def _current(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSION.name):
        return None
    current = connection.scalar(sa.select(_VERSION.c.version_num))
    if current is not None and current not in _revisions():
        raise Unsupported(f"the catalog's schema {current!r} is newer than this program: upgrade penstock")
    return current


@cache
def _revisions() -> list[str]:
    return sorted(file.name[1:5] for file in (Path(__file__).parent / "revisions").glob("r[0-9]*.py"))
