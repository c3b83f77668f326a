"""What is paid is recorded once, whatever dies; and no two spend the same money. On both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.jobs import get_job
from penstock.storage.catalog.tables import (
    ECONOMY,
    costs,
    generations,
    jobs,
    purses,
    reservations,
    versions,
)
from penstock.storage.costs import (
    Amounts,
    Bill,
    ForBatch,
    Payee,
    SearchCosts,
    charge_lapsed,
    read_costs,
    read_month,
    read_speed,
    settle,
)
from penstock.storage.costs.bills import UNRESERVED
from penstock.storage.errors import Conflict, OverBudget
from penstock.storage.ids import JobId, TenantId

from ..ledger_line import TENANT, Line, new_line

MODEL = "openai/m"
USD = 1e6  # a price at which a token costs a dollar
NOVEMBER_30, DECEMBER_1 = 1_796_079_600.0, 1_796_083_200.0  # an hour apart
DAY_S = 86_400.0


@pytest.fixture
def line(catalog) -> Line:
    made = new_line(catalog)
    made.now = NOVEMBER_30
    return made


def embed_claim(line: Line, *sources: str) -> ledger.Claim:
    line.submit(*sources)
    line.chunk()
    return line.claimed("embed")


def bill_of(line: Line, claim: ledger.Claim, *, price: float | None = USD, **weights: int) -> Bill:
    given = {JobId(name): weight for name, weight in weights.items()}
    payee = Payee(line.tenant, line.collection.id, MODEL, price, given or {claim.versions[0].job_id: 1})
    return Bill(line.catalog, payee, ForBatch(claim.batch_id, claim.attempt), clock=lambda: line.now)


def finish(line: Line, claim: ledger.Claim, bill: Bill) -> None:
    ledger.finish_embedding(line.catalog, claim, output="vectors", cache_hits=0, bill=bill, now=line.now)


def total(line: Line) -> Amounts:
    rows = read_costs(line.catalog, by=())
    return rows[0].amounts if rows else Amounts()


def rows_of(line: Line, table: sa.Table) -> list[sa.Row]:
    with line.catalog.read() as connection:
        return list(connection.execute(sa.select(table)))


def test_an_embedded_batch_costs_what_its_calls_took_by_hour_job_and_model(line):
    claim = embed_claim(line, "a")
    with bill_of(line, claim) as bill:
        bill.reserve(30)
        bill.paid(10)
        bill.paid(15)
        bill.saved(2, 7)
        finish(line, claim, bill)
    job_id = claim.versions[0].job_id
    [row] = read_costs(line.catalog, by=("day", "tenant", "collection", "job", "model"))
    named = {"day": "2026-11-30", "tenant": TENANT, "job": job_id, "model": MODEL}
    assert row.named == named | {"collection": "papers", "collection_id": line.collection.id}
    assert row.amounts == Amounts(2, 0, 25, 25.0, 0, 2, 7, 7.0, 0)
    job = get_job(line.catalog, tenant=TENANT, job_id=job_id)
    assert (job.embedded_tokens, job.cost_usd) == (25, 25.0)
    assert rows_of(line, reservations) == []
    assert {(one.name, one.spent_usd, one.reserved_usd) for one in rows_of(line, purses)} == {
        ("month:2026-11", 25.0, 0.0),
        (f"job:{job_id}", 25.0, 0.0),
    }


def test_what_was_paid_before_a_call_failed_is_recorded(line):
    claim = embed_claim(line, "a")
    with bill_of(line, claim) as bill:
        bill.reserve(30)
        bill.paid(10)
        bill.paid(20, answered=False)
    assert total(line) == Amounts(calls=2, failed_calls=1, tokens=30, cost_usd=30.0)


def test_what_was_paid_by_a_worker_that_lost_its_batch_is_recorded_once(line):
    claim = embed_claim(line, "a")
    bill = bill_of(line, claim)
    bill.reserve(30)
    bill.paid(30)
    line.retry(claim, counted=False)  # it was handed back meanwhile
    with pytest.raises(Conflict):
        finish(line, claim, bill)
    bill.close()
    assert total(line).cost_usd == 30.0
    bill.close()
    assert total(line).cost_usd == 30.0


def test_a_batch_that_runs_twice_costs_twice(line):
    claim = embed_claim(line, "a")
    with bill_of(line, claim) as bill:
        bill.reserve(30)
        bill.paid(30)
    line.retry(claim, counted=False)
    again = line.claimed("embed")
    with bill_of(line, again) as bill:
        bill.reserve(30)
        bill.paid(30)
        finish(line, again, bill)
    assert total(line) == Amounts(calls=2, tokens=60, cost_usd=60.0)


def test_what_a_worker_that_died_may_have_paid_is_charged_in_full_and_once(line):
    claim = embed_claim(line, "a")
    bill = bill_of(line, claim)
    bill.reserve(30)
    bill.paid(10)  # and here it dies, or is believed to
    line.now += 20.0
    assert charge_lapsed(line.catalog, now=line.now) == 0, "it still has its lease"
    line.now += 1_000.0
    line.reconcile()
    assert charge_lapsed(line.catalog, now=line.now) == 1
    assert charge_lapsed(line.catalog, now=line.now) == 0
    assert total(line) == Amounts(calls=1, failed_calls=1, tokens=30, cost_usd=30.0)
    bill.close()  # it lived after all
    assert total(line).cost_usd == 30.0
    assert {one.reserved_usd for one in rows_of(line, purses)} == {0.0}
    assert get_job(line.catalog, tenant=TENANT, job_id=claim.versions[0].job_id).cost_usd == 30.0


def test_jobs_that_share_a_batch_share_its_cost_and_nothing_is_lost(line):
    one, other = line.submit("a").job_id, line.submit("b").job_id
    line.chunk()
    claim = line.claimed("embed")
    with bill_of(line, claim, **{one: 1, other: 2}) as bill:
        bill.reserve(100)
        bill.paid(100)
        finish(line, claim, bill)
    shares = {row.named["job"]: row.amounts for row in read_costs(line.catalog, by=("job",))}
    assert sum(share.tokens for share in shares.values()) == 100
    assert sum(share.calls for share in shares.values()) == 1
    assert shares[other].cost_usd == pytest.approx(2 * shares[one].cost_usd)


def test_a_price_that_nobody_knows_is_no_zero(line):
    claim = embed_claim(line, "a")
    with bill_of(line, claim, price=None) as bill:
        bill.reserve(30)
        bill.paid(30)
        bill.saved(1, 5)
        finish(line, claim, bill)
    found = total(line)
    assert (found.tokens, found.unpriced_tokens, found.saved_tokens, found.unpriced_saved_tokens) == (30, 30, 5, 5)
    assert get_job(line.catalog, tenant=TENANT, job_id=claim.versions[0].job_id).cost_usd is None


def test_a_model_that_runs_here_is_counted_and_sets_nothing_aside(line):
    claim = embed_claim(line, "a")
    with bill_of(line, claim, price=0.0) as bill:
        bill.reserve(30)
        assert rows_of(line, reservations) == []
        bill.paid(30)
        finish(line, claim, bill)
    assert total(line) == Amounts(calls=1, tokens=30)


def test_costs_outlive_their_collection(line):
    claim = embed_claim(line, "a")
    with bill_of(line, claim) as bill:
        bill.reserve(30)
        bill.paid(30)
        finish(line, claim, bill)
        delete_collection(line.catalog, tenant=TENANT, name="papers")
    late = bill_of(line, claim)
    late.reserve(5)
    late.paid(5)
    late.close()
    [row] = read_costs(line.catalog, by=("collection",))
    assert row.named["collection"] == "papers"
    assert row.amounts.cost_usd == 35.0


def test_how_fast_a_model_is_tell_the_jobs_that_it_embedded_and_for_which_nobody_waited_a_day(line):
    claim = embed_claim(line, "a")
    with bill_of(line, claim) as bill:
        finish(line, claim, bill)
    generation = claim.generation

    def change(table: sa.Table, **values: object) -> None:
        with line.catalog.write() as connection:
            connection.execute(sa.update(table).values(values))

    def speed() -> float | None:
        return read_speed(line.catalog, model=generation.model, dimensions=generation.dimensions)

    change(jobs, state="done", embedded_tokens=1_000, created_at=100.0, finished_at=110.0)
    change(generations, active_since=50.0)
    assert speed() == 100.0
    change(generations, active_since=105.0)
    assert speed() is None, "another model served then"
    change(generations, active_since=50.0)
    change(versions, priority=ECONOMY)
    assert speed() is None


def test_what_one_tenant_spent_in_a_month_is_read_alone(line):
    claim = embed_claim(line, "a")
    with bill_of(line, claim) as bill:
        bill.reserve(30)
        bill.paid(10)
    assert read_month(line.catalog, line.now) == read_month(line.catalog, line.now, tenant=line.tenant) != {}
    assert read_month(line.catalog, line.now, tenant=TenantId("globex")) == {}
    assert read_month(line.catalog, DECEMBER_1) == {}


def test_sums_are_of_the_time_and_the_tenant_that_were_asked_for(line):
    payee = Payee(TENANT, line.collection.id, MODEL, USD)
    with SearchCosts(line.catalog, clock=lambda: line.now) as searches:
        payer = searches.payer(TENANT, line.collection.id, model=payee.model, price=payee.price)
        for tokens in (1, 2, 4):
            payer.reserve(tokens)
            payer.paid(tokens)
            searches.flush()
            line.now += DAY_S
    assert [(row.named["day"], row.amounts.tokens) for row in read_costs(line.catalog, by=("day",))] == [
        ("2026-11-30", 1),
        ("2026-12-01", 2),
        ("2026-12-02", 4),
    ]
    found = read_costs(line.catalog, by=("job",), since=DECEMBER_1, until=DECEMBER_1 + DAY_S)
    assert [(row.named["job"], row.amounts.tokens) for row in found] == [(None, 2)]
    assert read_costs(line.catalog, by=("day",), tenant="nobody") == []


def test_searches_are_written_in_bulk(line, monkeypatch):
    with SearchCosts(line.catalog, clock=lambda: line.now) as searches:
        searches.flush()
        writes = []
        original = line.catalog.write
        monkeypatch.setattr(line.catalog, "write", lambda what="catalog": writes.append(what) or original(what))
        payer = searches.payer(TENANT, line.collection.id, model=MODEL, price=USD)
        for _ in range(1_000):
            payer.reserve(1)
            payer.paid(1)
        assert writes == []
    assert writes == ["search_costs"]
    assert total(line) == Amounts(calls=1_000, tokens=1_000, cost_usd=1_000.0)
    assert {(one.name, one.spent_usd) for one in rows_of(line, purses)} == {("month:2026-11", 1_000.0)}


def test_workers_that_reserve_at_once_do_not_spend_the_same_money(line):
    job_id = line.submit("a").job_id
    line.set_budget(month=10.5, job=(job_id, 20.0))
    line.chunk()
    claim = line.claimed("embed")

    def spend(_number: int) -> int:
        bill = bill_of(line, claim)
        try:
            bill.reserve(1)
        except OverBudget:
            return 0
        bill.paid(1)
        bill.close()
        return 1

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(spend, range(30))) == 10
    assert total(line).cost_usd == 10.0
    month = {one.name: one for one in rows_of(line, purses)}["month:2026-11"]
    assert (month.spent_usd, month.reserved_usd) == (10.0, 0.0)


def test_what_was_bought_without_setting_money_aside_counts_for_every_budget(line):
    """An order, which is paid for when it is over."""
    claim = embed_claim(line, "a")
    job_id = claim.versions[0].job_id
    payee = bill_of(line, claim).payee
    with line.catalog.write() as connection:
        settle(connection, payee, {UNRESERVED: Amounts.of_call(5, payee.price)}, at=line.now)
    spent = {one.name: one.spent_usd for one in rows_of(line, purses)}
    assert spent == {f"job:{job_id}": 5.0, "month:2026-11": 5.0}
    line.set_budget(job=(job_id, 6.0))
    with bill_of(line, claim) as bill, pytest.raises(OverBudget):
        bill.reserve(2)


@pytest.mark.parametrize("which", ["job_budget", "month_budget"])
def test_a_call_that_a_budget_has_no_room_for_is_not_made_and_the_reason_says_what_to_do(line, which):
    claim = embed_claim(line, "a")
    job_id = claim.versions[0].job_id
    line.set_budget(**({"month": 5.0} if which == "month_budget" else {"job": (job_id, 5.0)}))
    with bill_of(line, claim) as bill, pytest.raises(OverBudget) as refused:
        bill.reserve(6)
    assert refused.value.budget == which
    assert not refused.value.may_come_back
    assert refused.value.renewed_at == (DECEMBER_1 if which == "month_budget" else None)
    told = f"penstock jobs budget {job_id} --set" if which == "job_budget" else "tenants set default --monthly-budget"
    assert told in str(refused.value)
    assert total(line) == Amounts()
    assert {one.reserved_usd for one in rows_of(line, purses)} <= {0.0}


def test_money_that_is_only_set_aside_may_come_back(line):
    claim = embed_claim(line, "a")
    line.set_budget(month=10.0)
    first, second = bill_of(line, claim), bill_of(line, claim)
    first.reserve(6)
    with pytest.raises(OverBudget) as refused:
        second.reserve(6)
    assert refused.value.may_come_back
    first.close()  # its call was refused, and cost nothing
    second.reserve(6)


def test_a_budget_begins_anew_with_the_month_and_a_call_counts_for_the_month_it_was_made_in(line):
    claim = embed_claim(line, "a")
    line.set_budget(month=10.0)
    old = bill_of(line, claim)
    old.reserve(8)
    line.now = DECEMBER_1 + 1.0
    new = bill_of(line, claim)
    new.reserve(9)
    old.paid(8)
    old.close()
    spent = {one.name: (one.spent_usd, one.reserved_usd) for one in rows_of(line, purses) if one.name[0] == "m"}
    assert spent == {"month:2026-11": (8.0, 0.0), "month:2026-12": (0.0, 9.0)}


def test_a_budget_cannot_be_kept_where_nobody_knows_the_price(line):
    claim = embed_claim(line, "a")
    line.set_budget(month=10.0)
    with pytest.raises(OverBudget, match="openai_usd_per_million_tokens"):
        bill_of(line, claim, price=None).reserve(1)
    bill_of(line, claim, price=0.0).reserve(1)


def test_searches_stop_at_the_budget_of_the_month_and_go_on_when_it_is_raised(line):
    line.set_budget(month=10.0)
    with SearchCosts(line.catalog, clock=lambda: line.now) as searches:
        payer = searches.payer(TENANT, line.collection.id, model=MODEL, price=USD)
        for _ in range(5):
            payer.reserve(2)
            payer.paid(2)
        with pytest.raises(OverBudget):
            payer.reserve(2)
        line.set_budget(month=12.0)
        line.now += 2.0
        payer.reserve(2)
        payer.paid(2)
        free = searches.payer(TENANT, line.collection.id, model="minilm", price=0.0)
        free.reserve(1_000)
        free.paid(1_000)
    assert total(line).cost_usd == 12.0
    assert rows_of(line, reservations) == []


def test_an_allowance_of_a_process_that_died_is_charged_in_full(line):
    line.set_budget(month=100_000.0)
    searches = SearchCosts(line.catalog, clock=lambda: line.now)
    searches.payer(TENANT, line.collection.id, model=MODEL, price=USD).reserve(2)  # and then it dies
    line.now += 1_000.0
    assert charge_lapsed(line.catalog, now=line.now) == 1
    assert total(line).tokens == 20_000
    assert rows_of(line, costs)[0].job_id == ""
