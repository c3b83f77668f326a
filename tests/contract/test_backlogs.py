"""How much of a tenant may wait: refused whole, told when to come again, counted without counting."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from penstock.storage import ledger
from penstock.storage.catalog.backlogs import (
    MOST_RETRY_S,
    PAUSED_RETRY_S,
    UNKNOWN_RETRY_S,
    Amount,
    check_backlog,
    count_came,
    measure,
    read_backlog,
)
from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.jobs import cancel_job
from penstock.storage.catalog.tables import backlogs, versions
from penstock.storage.catalog.tenants import change_tenant, create_tenant, get_tenant
from penstock.storage.errors import BacklogFull, NotFound, TooMuchAtOnce
from penstock.storage.intake.documents import Terms
from penstock.storage.ledger import pause
from penstock.storage.ledger.turns import Turns

from ..ledger_line import Line, document, new_line, rows, waits_for_turns

MOST = Amount(10, 1_000)


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def submit(line: Line, *names: str, size: int = 10, most: Amount | None = MOST) -> None:
    line.accept([document(name, "x" * size) for name in names], terms=Terms(most_waiting=most))


def waiting(line: Line) -> Amount:
    return get_tenant(line.catalog, line.tenant).waiting


def really(line: Line) -> Amount:
    counted = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(versions.c.size_bytes), 0))
    with line.catalog.read() as connection:
        row = connection.execute(counted.where(versions.c.state == "queued", versions.c.tenant_id == line.tenant)).one()
    return Amount(*map(int, row))


def test_a_submission_that_would_exceed_the_limit_is_refused_whole(line):
    submit(line, *"abcdefgh")
    before = rows(line.catalog)
    with pytest.raises(BacklogFull, match=r"nothing was accepted: 8 documents of this tenant wait, and 10 may"):
        submit(line, *"ijk")
    with pytest.raises(BacklogFull, match=r"bytes of this tenant wait, and 1,000 may"):
        submit(line, "large", size=950)
    assert rows(line.catalog) == before
    submit(line, *"ij")
    with pytest.raises(BacklogFull):
        check_backlog(line.catalog, line.tenant, most=MOST)


def test_what_would_not_even_fit_an_empty_backlog_is_told_so(line):
    with pytest.raises(TooMuchAtOnce, match=r"11 documents are more than may wait of this tenant at all, which is 10"):
        submit(line, *"abcdefghijk")
    with pytest.raises(TooMuchAtOnce, match=r"limits\.max_backlog_bytes"):
        submit(line, "a", size=1_001)
    assert waiting(line) == Amount()


def test_what_is_here_already_needs_no_room_and_a_new_version_takes_that_of_the_one_it_replaces(line):
    submit(line, *"abcdefghij")
    submit(line, *"abc")
    submit(line, *"abc", size=20)
    assert waiting(line) == really(line) == Amount(10, 130)


def test_a_tenant_may_have_limits_of_its_own_and_another_does_not_notice(line):
    other = new_line(line.catalog, tenant=create_tenant(line.catalog, "other", now=1.0))
    change_tenant(line.catalog, line.tenant, max_backlog_documents=2)
    submit(line, *"ab")
    with pytest.raises(BacklogFull, match="and 2 may"):
        submit(line, "c")
    submit(other, *"abcdefghij")
    change_tenant(line.catalog, line.tenant, max_backlog_documents=None)
    submit(line, "c")


def test_only_one_of_two_that_come_at_once_gets_the_last_room(line):
    submit(line, *"abcdefgh")
    told: list[BaseException | None] = []
    start = threading.Barrier(2)

    def rival(name: str) -> None:
        start.wait()
        try:
            submit(line, f"{name}1", f"{name}2")
            told.append(None)
        except BacklogFull as error:
            told.append(error)

    threads = [threading.Thread(target=rival, args=[name]) for name in ("x", "y")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(error is None for error in told) == [False, True]
    assert waiting(line) == really(line) == Amount(10, 100)


def test_what_waits_is_counted_right_however_it_leaves(line):
    submit(line, *"abcdefghij")
    line.form(max_documents=3, max_batches=1)
    assert waiting(line) == really(line) == Amount(7, 70)
    line.remove("d")
    assert waiting(line) == really(line) == Amount(6, 60)
    line.update("e", patch={"x": 1})  # starts again
    assert waiting(line) == really(line) == Amount(6, 60)
    job = line.accept([document("k", "x")], terms=Terms(most_waiting=MOST)).job_id
    cancel_job(line.catalog, tenant=line.tenant, job_id=job, now=line.now)
    assert waiting(line) == really(line) == Amount(6, 60)
    delete_collection(line.catalog, tenant=line.tenant, name="papers")
    assert waiting(line) == really(line) == Amount()


def test_a_count_now_and_then_puts_right_what_no_transaction_told(line):
    submit(line, *"abcdefghij")
    with line.catalog.write() as connection:
        connection.execute(sa.delete(versions).where(versions.c.filename.in_(["a.txt", "b.txt"])))
    assert waiting(line).documents == 10
    measure(line.catalog, now=line.now, recount=True)
    assert waiting(line) == really(line) == Amount(8, 80)
    with line.catalog.write() as connection:
        connection.execute(sa.delete(backlogs))
    for _ in range(2):
        measure(line.catalog, now=line.now, recount=True)
    assert waiting(line) == Amount(8, 80)


def test_the_rows_of_tenants_are_changed_in_one_order_whoever_changes_them(line):
    """Two dispatchers that took them in another order would wait for each other."""
    names = ["zeta", "alpha", "midst"]
    for name in names:
        submit(new_line(line.catalog, tenant=create_tenant(line.catalog, name, now=1.0), objects=line.objects), "a")
    with line.catalog.write() as connection:
        connection.execute(sa.delete(backlogs).where(backlogs.c.tenant_id == "midst"))
    changed: list[str] = []

    def listen(*given: object) -> None:
        if str(given[2]).startswith(("UPDATE backlogs", "INSERT INTO backlogs")):
            changed.extend(name for name in names if name in str(given[3]))

    event.listen(sa.Engine, "before_cursor_execute", listen)
    try:
        measure(line.catalog, now=line.now, recount=True)
        line.form()
    finally:
        event.remove(sa.Engine, "before_cursor_execute", listen)
    assert changed == sorted(names) * 2


def test_whoever_waits_to_hand_batches_out_keeps_nobody_from_submitting_or_cancelling(postgres_catalog):
    """Who holds a tenant's row waits for nobody: whoever cancels holds a batch that a claim wants, and wants this."""
    line = new_line(postgres_catalog)
    submit(line, *"abc")
    with ThreadPoolExecutor(1) as thread:
        with line.catalog.write() as connection:
            Turns.read(connection, "chunk", among=[line.tenant])  # as a claim does, until it has its batch
            sending = thread.submit(line.send, "chunk", forming=ledger.Forming(100))
            deadline = time.monotonic() + 20
            while not sending.done() and not waits_for_turns(line.catalog):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with line.catalog.write() as another:
                another.exec_driver_sql("SET LOCAL lock_timeout = '500ms'")
                count_came(another, line.tenant, Amount(1, 10))
        assert len(sending.result()) == 1


def test_the_answer_says_when_to_come_again_by_how_fast_things_left(line):
    submit(line, *"abcdefghij")

    def asked() -> float:
        with pytest.raises(BacklogFull) as caught:
            submit(line, *"uvwxyz")
        return caught.value.retry_after_s

    assert asked() == UNKNOWN_RETRY_S
    measure(line.catalog, now=line.now)
    line.form(max_documents=2, max_batches=1)
    line.now += 4.0
    measure(line.catalog, now=line.now)  # 2 documents in 4 s
    assert asked() == pytest.approx((8 + 6 - 10) / 0.5)
    line.now += 1e6
    measure(line.catalog, now=line.now)  # it stands still
    line.now += 1e6
    measure(line.catalog, now=line.now)
    assert 8.0 < asked() <= MOST_RETRY_S
    pause(line.catalog, now=line.now, tenant=line.tenant)
    assert asked() == PAUSED_RETRY_S


def test_accepting_looks_at_no_more_rows_however_much_waits(line):
    """The statements of an accept are the same, and none of them counts versions."""
    statements: list[list[str]] = []

    def listen(*given: object) -> None:
        statements[-1].append(str(given[2]))

    for name in ("a", "b"):
        statements.append([])
        event.listen(sa.Engine, "before_cursor_execute", listen)
        try:
            submit(line, name, most=Amount(1_000, 10**9))
        finally:
            event.remove(sa.Engine, "before_cursor_execute", listen)
        submit(line, *(f"{name}{number}" for number in range(200)), most=None)
    assert len(statements[0]) - len(statements[1]) in (0, 1)  # the first makes the tenant's row
    assert not [text for text in statements[1] if "count(" in text and "versions" in text]


def test_changing_or_pausing_a_tenant_that_is_not_there_says_so(line):
    with pytest.raises(NotFound):
        change_tenant(line.catalog, "nobody", weight=2.0)
    with pytest.raises(NotFound):
        pause(line.catalog, now=1.0, tenant="nobody")
    with line.catalog.read() as connection:
        assert read_backlog(connection, "nobody", most=MOST).waiting == Amount()
