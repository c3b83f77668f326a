"""The database itself refuses every change of state that is not in the table of legal ones, and allows all that are."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.tables import (
    BATCH_STATES,
    JOB_STATES,
    REEMBEDDING_STATES,
    VERSION_STATES,
    batches,
    jobs,
    reembeddings,
    versions,
)
from penstock.storage.catalog.transitions import BATCHES, BATCHES_REOPENED, JOBS, REEMBEDDINGS, VERSIONS, guard
from penstock.storage.reembedding.commands import NewGeneration, Terms, begin

from ..ledger_line import new_line

TABLES = {
    "versions": (versions, VERSIONS),
    "jobs": (jobs, JOBS),
    "batches": (batches, BATCHES),
    "reembeddings": (reembeddings, REEMBEDDINGS),
}
WORDS = {
    "versions": VERSION_STATES,
    "jobs": JOB_STATES,
    "batches": BATCH_STATES,
    "reembeddings": REEMBEDDING_STATES,
}


def allowed(catalog: Catalog, table: sa.Table) -> set[tuple[str, str]]:
    """Try every pair of states on the one row of the table, and return those that the database let through."""
    words = WORDS[table.name]
    done = set()
    for old in words:
        with catalog.write() as connection:
            row = dict(connection.execute(sa.select(table)).mappings().one())
            connection.execute(sa.delete(table).where(table.c.id == row["id"]))
            connection.execute(sa.insert(table).values({**row, "state": old}))
            done |= {(old, new) for new in words if goes_through(connection, table, new)}
            assert connection.scalar(sa.select(table.c.state)) == old
    return done


def goes_through(connection: sa.Connection, table: sa.Table, state: str) -> bool:
    """Say whether the row may take this state; leaves it as it is."""
    tried = connection.begin_nested()
    try:
        connection.execute(sa.update(table).values(state=state))
    except sa.exc.IntegrityError as error:
        if "this change of state is not legal" not in str(error):
            raise
        return False
    finally:
        tried.rollback()
    return True


def said(transitions: Mapping[str, str]) -> set[tuple[str, str]]:
    return {(old, new) for old, words in transitions.items() for new in (old, *words.split())}


@pytest.fixture
def rows(catalog):
    """One version and one batch in the catalog, and one job that nothing refers to."""
    line = new_line(catalog)
    line.submit("a")
    line.form()
    return line


def without_references(catalog: Catalog) -> None:
    with catalog.write() as connection:
        connection.execute(sa.delete(versions))


@pytest.mark.parametrize("name", TABLES)
def test_every_illegal_change_of_a_state_is_refused_and_every_legal_one_is_not(catalog, rows, name):
    table, transitions = TABLES[name]
    assert transitions.keys() == set(WORDS[name])
    if name == "jobs":
        without_references(catalog)
    if name == "reembeddings":
        chosen = NewGeneration("hash", 384, "cosine", "none", {})
        begin(catalog, rows.collection, chosen, terms=Terms(keep_s=1.0), now=1.0)
    assert allowed(catalog, table) == said(transitions)


@pytest.mark.parametrize("stage", ["expire", "follow"])
def test_only_the_one_batch_of_a_generation_is_opened_again(catalog, rows, stage):
    with catalog.write() as connection:
        connection.execute(sa.update(batches).values(stage=stage))
    assert allowed(catalog, batches) == said(BATCHES_REOPENED)


def test_one_illegal_row_undoes_a_change_of_many(catalog):
    line = new_line(catalog)
    line.submit("a", "b", "c")
    second = line.version_rows("id")[1][0]
    with catalog.write() as connection:
        connection.execute(sa.update(versions).where(versions.c.id == second).values(state="failed"))
    with pytest.raises(sa.exc.IntegrityError), catalog.write() as connection:
        connection.execute(sa.update(versions).values(state="cancelled"))
    assert line.states() == {"a": ["queued"], "b": ["failed"], "c": ["queued"]}


def test_made_a_second_time_the_guard_stands_once(catalog, rows):
    with catalog.write() as connection:
        guard(connection)
    assert allowed(catalog, batches) == said(BATCHES)


def test_the_page_about_states_says_what_the_database_does():
    page = (Path(__file__).parents[2] / "docs/states.md").read_text()
    for section, transitions in (
        ("Documents", VERSIONS),
        ("Jobs", JOBS),
        ("Batches", BATCHES),
        ("Re-embeddings", REEMBEDDINGS),
    ):
        part = page.split(f"## {section}\n")[1].split("\n## ")[0]
        said_here = {
            state: set(re.findall(r"`(\w+)`", after)) for state, after in re.findall(r"\| `(\w+)` \| (.*?) \|", part)
        }
        assert said_here == {state: set(words.split()) for state, words in transitions.items()}
