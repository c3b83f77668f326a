"""Work whose budget has no room waits, others go on, and a raised budget lets it go on at once. On both databases."""

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.budgets import set_job_budget
from penstock.storage.catalog.jobs import JobInfo, get_job
from penstock.storage.catalog.progress import HeldUp
from penstock.storage.catalog.tables import batches
from penstock.storage.catalog.tenants import change_tenant
from penstock.storage.errors import NotFound
from penstock.storage.ids import JobId, TenantId
from penstock.storage.intake.documents import Terms
from penstock.storage.ledger.caps import Caps

from ..ledger_line import TENANT, Line, document, new_line

NEXT_MONTH = 5_000_000.0


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def submit(line: Line, *sources: str, budget_usd: float | None = None) -> JobId:
    return line.accept([document(source) for source in sources], terms=Terms(budget_usd=budget_usd)).job_id


def refuse(line: Line, claim: ledger.Claim, budget: ledger.Postponed) -> None:
    """Hand the batch back as a worker does whose call a budget has no room for."""
    delay_s = ledger.UNTIL_RAISED_S if budget == "job_budget" else NEXT_MONTH - line.now
    where = {"error": "no room", "now": line.now, "delay_s": delay_s, "counted": False}
    ledger.retry_later(line.catalog, claim, postponed=budget, **where)


def job(line: Line, job_id: JobId) -> JobInfo:
    return get_job(line.catalog, tenant=TENANT, job_id=job_id)


def raise_job(line: Line, job_id: JobId, usd: float | None = 5.0) -> None:
    set_job_budget(line.catalog, tenant=TENANT, job_id=job_id, budget_usd=usd)


def test_a_job_waits_for_its_budget_with_the_reason_and_is_not_tried_until_that_is_raised(line):
    job_id = submit(line, "a", budget_usd=1.0)
    line.chunk()
    refuse(line, line.claimed("embed"), "job_budget")
    found = job(line, job_id)
    assert (found.state, found.budget_usd) == ("running", 1.0)
    assert found.held_up == HeldUp(paused=True, reason="no room", next_attempt_at=None)
    line.now += 30 * 365 * 86_400.0
    assert line.send("embed") == []
    raise_job(line, job_id)
    line.embed()
    assert job(line, job_id).held_up is None
    assert job(line, job_id).budget_usd == 5.0


def test_what_waits_for_the_budget_of_a_month_goes_on_with_the_next_one_or_when_it_is_raised(line):
    job_id = submit(line, "a")
    line.chunk()
    refuse(line, line.claimed("embed"), "month_budget")
    assert job(line, job_id).held_up == HeldUp(True, "no room", NEXT_MONTH)
    assert line.send("embed") == []
    change_tenant(line.catalog, TENANT, monthly_budget_usd=7.0)
    refuse(line, line.claimed("embed"), "month_budget")
    assert line.send("embed") == []
    line.now = NEXT_MONTH
    assert len(line.send("embed")) == 1


def test_a_pause_for_another_reason_is_not_ended_by_money(line):
    job_id = submit(line, "a")
    line.chunk()
    claim = line.claimed("embed")
    where = {"error": "no key", "now": line.now, "delay_s": 60.0, "counted": False}
    ledger.retry_later(line.catalog, claim, postponed="paused", **where)
    raise_job(line, job_id)
    assert line.send("embed") == []


def test_documents_of_a_job_with_a_budget_share_no_batch_with_others(line):
    submit(line, "a", "b")
    frugal = submit(line, "c", "d", budget_usd=1.0)
    submit(line, "e")
    other = submit(line, "f", budget_usd=1.0)
    line.form()
    shares = [{version.job_id for version in line.claim(one).versions} for one in line.send("chunk")]
    assert sorted(len(share) for share in shares) == [1, 1, 2]
    assert {frozenset(share) for share in shares if share & {frugal, other}} == {
        frozenset({frugal}),
        frozenset({other}),
    }


def test_other_jobs_are_cut_and_embedded_while_one_has_no_money(line):
    poor = submit(line, *(f"poor{number}" for number in range(6)), budget_usd=1.0)
    line.form(max_documents=1)
    line.chunk()
    for batch in line.send("embed"):
        refuse(line, line.claim(batch), "job_budget")
    rich = submit(line, "rich")
    line.form(ahead=Caps(1))
    line.chunk()
    line.embed()
    assert job(line, rich).chunks_embedded == 1
    assert job(line, poor).chunks_embedded == 0


def test_a_batch_that_was_made_before_one_of_its_jobs_had_a_budget_goes_on_without_that_job(line):
    poor, rich = submit(line, "a", "b"), submit(line, "c")
    line.chunk()
    claim = line.claimed("embed")
    assert len(claim.versions) == 3
    raise_job(line, poor, 0.0)
    assert ledger.set_apart(line.catalog, claim, job_id=poor, now=line.now)
    line.embed()
    assert (job(line, rich).chunks_embedded, job(line, poor).chunks_embedded) == (1, 0)
    line.chunk()
    claim = line.claimed("embed")
    assert {version.job_id for version in claim.versions} == {poor}
    assert not ledger.set_apart(line.catalog, claim, job_id=poor, now=line.now), "nobody shares it"
    line.finish_embedding(claim)
    line.publish(line.claim_index())
    assert {job(line, one).state for one in (poor, rich)} == {"done"}


def test_a_job_that_goes_on_keeps_its_budget_unless_it_is_given_another(line):
    job_id = submit(line, "a", budget_usd=1.0)
    for budget, expected in ((None, 1.0), (3.0, 3.0)):
        line.accept([document(f"b{budget}")], job_id=job_id, terms=Terms(budget_usd=budget))
        assert job(line, job_id).budget_usd == expected


def test_nobody_changes_the_budget_of_another_tenant_s_job(line):
    job_id = submit(line, "a", budget_usd=1.0)
    with pytest.raises(NotFound):
        set_job_budget(line.catalog, tenant=TenantId("other"), job_id=job_id, budget_usd=9.0)
    assert job(line, job_id).budget_usd == 1.0


def test_a_batch_that_waits_for_money_counts_no_attempt(line):
    submit(line, "a", budget_usd=1.0)
    line.chunk()
    refuse(line, line.claimed("embed"), "job_budget")
    with line.catalog.read() as connection:
        attempts = connection.scalars(sa.select(batches.c.attempts).where(batches.c.stage == "embed")).all()
    assert attempts == [0]
