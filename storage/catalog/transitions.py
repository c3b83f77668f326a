"""Which states follow which, of jobs, document versions and batches: one table, enforced by the database.

A trigger refuses every other change of a state, whoever asks for it, with an integrity error: what no program may do
by mistake, such as finishing what was cancelled, cannot be done at all. The migrations make the triggers from this
table; when a released schema needs another table, its revision calls `guard` again, which replaces them.

To stay in a state is no transition. Rows may be inserted in any state: a fork and a rebuilt catalog begin with
documents that are indexed already.
"""

from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy.engine import Connection

Transitions = Mapping[str, str]  # by state, the words of those that may follow it

# On their way: forward; back to chunking when their batch is taken apart, and to queued when another generation takes
# over; or to one of the ends.
# Over: back to life by a rollback (indexed), by a retry (queued, chunking, indexing, deleting) or by a repair (queued).
VERSIONS: Transitions = {
    "queued": "chunking failed cancelled superseded",
    "chunking": "embedding queued failed cancelled superseded",
    "embedding": "indexing chunking queued failed cancelled superseded",
    "indexing": "indexed chunking queued failed cancelled superseded",
    "deleting": "deleted failed cancelled superseded",
    "trimming": "trimmed failed cancelled",
    "indexed": "superseded deleted expired queued failed",
    "failed": "queued chunking indexing deleting dropped indexed",
    "cancelled": "indexed",
    "superseded": "indexed",
    "deleted": "indexed",
    "expired": "indexed",
    "dropped": "indexed",
    "trimmed": "",
}
JOBS: Transitions = {
    "running": "done cancelled",
    "done": "running",  # more documents were submitted as a part of it
    "cancelled": "",
}
BATCHES: Transitions = {
    "ready": "sent running done dead",
    "sent": "ready running done dead",
    "running": "ready done dead",
    "done": "",
    "dead": "",
}
BATCHES_REOPENED: Transitions = {**BATCHES, "done": "ready", "dead": "ready"}
REOPENED_STAGES = ("expire", "follow")  # there is one such batch of each generation, opened again and again
REEMBEDDINGS: Transitions = {
    "copying": "checking cancelled",
    "checking": "ready refused switching cancelled",
    "ready": "checking switching cancelled",
    "refused": "checking switching cancelled",
    "switching": "switched returned cancelled",
    "switched": "returning done",
    "returning": "returned switched",
    "returned": "switching done",
    "done": "",
    "cancelled": "",
}

_REFUSAL = "this change of state is not legal: see storage/catalog/transitions.py"


def guard(connection: Connection) -> None:
    """Make the triggers, in place of former ones."""
    for table, illegal in _conditions():
        name = f"{table}_transitions"
        if connection.dialect.name == "postgresql":
            _guard_postgresql(connection, table, name, illegal)
            continue
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
        connection.exec_driver_sql(
            f"CREATE TRIGGER {name} BEFORE UPDATE OF state ON {table} FOR EACH ROW WHEN ({illegal}) "
            f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        )


def _guard_postgresql(connection: Connection, table: str, name: str, illegal: str) -> None:
    # In a function, which a session compiles once: a condition of the trigger is read anew in every statement, which
    # made an update of one row at a time four times as slow (measured).
    connection.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF ({illegal}) THEN "
        f"RAISE EXCEPTION '{_REFUSAL} (%%, from %% to %%)', TG_TABLE_NAME, OLD.state, NEW.state "
        "USING ERRCODE = 'check_violation'; END IF; RETURN NEW; END $$"
    )
    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name} ON {table}")
    connection.exec_driver_sql(
        f"CREATE TRIGGER {name} BEFORE UPDATE OF state ON {table} FOR EACH ROW "
        f"WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION {name}()"
    )


def _conditions() -> Iterator[tuple[str, str]]:
    yield "versions", _illegal(VERSIONS)
    yield "jobs", _illegal(JOBS)
    yield "reembeddings", _illegal(REEMBEDDINGS)
    reopened = f"OLD.stage IN ({', '.join(repr(stage) for stage in REOPENED_STAGES)})"
    yield "batches", f"({_illegal(BATCHES)}) AND ({_illegal(BATCHES_REOPENED)} OR NOT {reopened})"


def _illegal(transitions: Transitions) -> str:
    """Return the condition, in SQL, under which a row must not become what it is about to.

    Not an IN: SQLite would build its list anew for every row, which doubles the time of a bulk update (measured).
    """
    cases = " ".join(f"WHEN '{old}' THEN {_unless((old, *new.split()))}" for old, new in transitions.items())
    return f"CASE OLD.state {cases} ELSE TRUE END"


def _unless(legal: Iterable[str]) -> str:
    cases = " ".join(f"WHEN '{word}' THEN FALSE" for word in legal)
    return f"CASE NEW.state {cases} ELSE TRUE END"
