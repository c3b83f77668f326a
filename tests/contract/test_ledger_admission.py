"""What enters the queue: small fair batches, sent when due, and sent again when nobody came."""

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.tables import BATCH_STAGES, batches
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.ledger.due import look

from ..ledger_line import LEASE_S, Line, document, new_line


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def sizes(line: Line) -> list[tuple[str, int, int]]:
    wanted = sa.select(batches.c.tenant_id, batches.c.document_count, batches.c.size_bytes).order_by(batches.c.id)
    with line.catalog.read() as connection:
        return [tuple(row) for row in connection.execute(wanted)]


def submit_sized(line: Line, *size_bytes: int) -> None:
    line.accept([document(f"d{number}", "x" * size) for number, size in enumerate(size_bytes)])


def test_queued_documents_go_into_batches_in_the_order_they_came(line):
    submit_sized(line, *range(1, 8))
    assert line.form(max_documents=3) == 3
    assert sorted(row[1:] for row in sizes(line)) == [(1, 7), (3, 6), (3, 15)]  # ids of one millisecond have no order
    assert line.states() == {f"d{number}": ["chunking"] for number in range(7)}
    assert line.form() == 0


def test_a_batch_ends_before_its_bytes_are_too_many_and_a_large_document_goes_alone(line):
    submit_sized(line, 40, 40, 40, 500, 10, 10)
    assert line.form(max_bytes=100) == 4
    assert sorted(row[1:] for row in sizes(line)) == [(1, 40), (1, 500), (2, 20), (2, 80)]


def test_no_more_batches_are_formed_than_asked_for(line):
    submit_sized(line, *[10] * 9)
    assert line.form(max_batches=2, max_documents=2) == 2
    assert sorted(states[0] for states in line.states().values()) == ["chunking"] * 4 + ["queued"] * 5
    assert line.form(max_batches=0) == 0


def test_a_tenant_with_a_flood_does_not_delay_another_tenants_few(line):
    acme = new_line(line.catalog, tenant=create_tenant(line.catalog, "acme", now=1.0))
    submit_sized(line, *[10] * 40)
    line.form(max_batches=3, max_documents=5)
    submit_sized(acme, 10, 10, 10)

    assert line.form(max_batches=2, max_documents=2) == 2
    assert sorted(row[:2] for row in sizes(line))[:2] == [("acme", 1), ("acme", 2)]


def test_batches_alternate_between_tenants_and_between_the_collections_of_one(line):
    letters = new_line(line.catalog, name="letters")
    acme = new_line(line.catalog, tenant=create_tenant(line.catalog, "acme", now=1.0))
    for one in (line, letters, acme):
        submit_sized(one, *[10] * 10)
    line.form(max_batches=4, max_documents=1)
    with line.catalog.read() as connection:
        found = connection.execute(
            sa.select(batches.c.tenant_id, batches.c.generation_id, sa.func.count()).group_by(
                batches.c.generation_id, batches.c.tenant_id
            )
        ).all()
    assert {(tenant, generation): count for tenant, generation, count in found} == {
        ("acme", acme.collection.generation.id): 2,
        ("default", line.collection.generation.id): 1,
        ("default", letters.collection.generation.id): 1,
    }


def test_a_batch_is_sent_once_until_its_message_must_be_lost(line):
    line.submit("a")
    line.form()
    (batch,) = line.send("chunk")
    assert line.send("chunk") == []
    assert look(line.catalog, now=line.now).in_flight == dict.fromkeys(BATCH_STAGES, 0) | {"chunk": 1}

    line.now += LEASE_S
    assert line.reconcile().resent == 0
    line.now += 1
    assert line.reconcile().resent == 1
    assert line.send("chunk") == [batch]


def test_a_claimed_batch_is_not_sent_again_however_late_its_message_was(line):
    line.submit("a")
    line.form()
    (batch,) = line.send("chunk")
    line.now += LEASE_S + 1
    line.reconcile()
    assert line.claim(batch) is not None
    assert line.send("chunk") == []


def test_sending_takes_tenants_in_turn(line):
    acme = new_line(line.catalog, tenant=create_tenant(line.catalog, "acme", now=1.0))
    submit_sized(line, *[10] * 6)
    line.form(max_documents=1)
    submit_sized(acme, 10, 10)
    line.form(max_documents=1)

    first = line.send("chunk", limit=4)
    with line.catalog.read() as connection:
        tenants = connection.scalars(sa.select(batches.c.tenant_id).where(batches.c.id.in_(first))).all()
    assert sorted(tenants) == ["acme", "acme", "default", "default"]
    assert len(line.send("chunk", limit=100)) == 4


def test_a_batch_that_waits_for_its_next_attempt_is_neither_sent_nor_claimed(line):
    line.submit("a")
    claim = line.claimed("chunk")
    ledger.retry_later(line.catalog, claim, error="slow down", now=line.now, delay_s=60.0)
    assert line.send("chunk") == []
    assert line.claim(claim.batch_id) is None
    line.now += 60
    assert line.send("chunk") == [claim.batch_id]
