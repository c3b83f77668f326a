"""An order holds its price from when it is to be made until it is over, and not a moment longer. On both databases."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.jobs import cancel_job, get_job
from penstock.storage.catalog.tables import purses, reservations
from penstock.storage.costs import OrderCosts, Payee, charge_lapsed, give_back_unordered, read_costs
from penstock.storage.errors import Conflict, OverBudget
from penstock.storage.ids import BatchId
from penstock.storage.ledger.orders import Delivered, Order

from ..ledger_line import TENANT, Line, new_line

USD = 1e6  # a price at which a token costs a dollar
DAY_S = 86_400.0


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def claims(line: Line, *sources: str) -> list[ledger.Claim]:
    """Cut documents, each of a job and in a batch of its own, and claim what is to be embedded."""
    for source in sources:
        line.submit(source)
        line.chunk()
    found = [line.claim(batch) for batch in line.send("embed")]
    return [claim for claim in found if claim is not None]


def aside(line: Line, claim: ledger.Claim, tokens: int = 10, *, price: float | None = USD) -> None:
    payee = Payee(line.tenant, line.collection.id, "openai/m", price, {claim.versions[0].job_id: 1})
    ledger.put_aside(line.catalog, claim, rows=[0], tokens=tokens, payee=payee, reason="to be ordered", now=line.now)


def ordered(line: Line) -> Order:
    """Make an order of what is put aside, and hold it."""
    ledger.gather(line.catalog, now=line.now, wait_s=0.0)
    order = ledger.claim_order(line.catalog, owner="desk", lease_s=600.0, now=line.now)
    assert order is not None
    return order


def delivered(*paid: tuple[ledger.Claim, int], whole: bool = True) -> Delivered:
    tokens = Counter({claim.batch_id: count for claim, count in paid})
    weights = Counter({claim.versions[0].job_id: count for claim, count in paid})
    wanted = frozenset(claim.batch_id for claim, _ in paid)
    return Delivered({}, OrderCosts(USD, tokens, weights, wanted, whole=whole))


def end(line: Line, order: Order, what: Delivered | None = None) -> None:
    ledger.end_order(line.catalog, order, what or Delivered(), told="it is over", now=line.now)


def money(line: Line) -> dict[str, tuple[float, float]]:
    """Return what is spent and what is set aside, by purse; nothing for an empty one."""
    with line.catalog.read() as connection:
        rows = connection.execute(sa.select(purses)).all()
    return {row.name: (row.spent_usd, row.reserved_usd) for row in rows if row.spent_usd or row.reserved_usd}


def month(line: Line) -> tuple[float, float]:
    return next((amounts for name, amounts in money(line).items() if name.startswith("month:")), (0.0, 0.0))


def test_what_is_put_aside_holds_its_price_until_it_is_delivered_and_then_what_it_cost(line):
    [claim] = claims(line, "a")
    job_id = claim.versions[0].job_id
    aside(line, claim, 10)
    assert month(line) == (0.0, 10.0)
    assert money(line)[f"job:{job_id}"] == (0.0, 10.0)
    order = ordered(line)
    line.now += DAY_S
    assert charge_lapsed(line.catalog, now=line.now) == give_back_unordered(line.catalog, now=line.now) == 0
    assert month(line) == (0.0, 10.0), "however long it takes"
    end(line, order, delivered((claim, 7)))
    assert set(money(line).values()) == {(7.0, 0.0)}
    job = get_job(line.catalog, tenant=TENANT, job_id=job_id)
    assert (job.cost_usd, job.embedded_tokens) == (7.0, 7)
    [row] = read_costs(line.catalog, by=())
    assert (row.amounts.calls, row.amounts.tokens, row.amounts.cost_usd) == (1, 7, 7.0)
    with pytest.raises(Conflict):
        end(line, order, delivered((claim, 7)))
    assert month(line) == (7.0, 0.0), "it is charged once"


@pytest.mark.parametrize("budget", ["job", "month"])
def test_batches_that_are_put_aside_cannot_overspend_together(line, budget):
    line.submit("a", "b", "c")
    line.form(max_documents=1)
    line.chunk()
    found = [line.claim(batch) for batch in line.send("embed")]
    limits = {"job": {"job": (found[0].versions[0].job_id, 25.0)}, "month": {"month": 25.0}}
    line.set_budget(**limits[budget])

    def try_aside(claim: ledger.Claim) -> OverBudget | None:
        try:
            aside(line, claim, 10)
        except OverBudget as error:
            return error
        return None

    with ThreadPoolExecutor(3) as threads:
        [refused] = [error for error in threads.map(try_aside, found) if error is not None]
    assert refused.budget == f"{budget}_budget"
    assert refused.may_come_back
    assert month(line) == (0.0, 20.0)
    assert line.batch_states("embed").count("running") == 1, "what has no room is still held by its worker"


def test_what_was_lost_meanwhile_holds_no_money(line):
    [claim] = claims(line, "a")
    line.retry(claim, counted=False)
    with pytest.raises(Conflict):
        aside(line, claim)
    assert money(line) == {}


def test_what_an_order_did_not_bring_is_given_back(line):
    first, second = claims(line, "a", "b")
    aside(line, first, 10)
    aside(line, second, 20)
    end(line, ordered(line))
    assert money(line) == {}
    assert read_costs(line.catalog, by=()) == []
    for batch in line.send("embed"):
        aside(line, line.claim(batch), 30)
    assert month(line) == (0.0, 60.0), "what is ordered once more is set aside once more"


def test_a_batch_that_comes_back_while_it_is_ordered_holds_its_price_once(line):
    [claim] = claims(line, "a")
    aside(line, claim, 10)
    order = ordered(line)
    line.now += 2 * DAY_S
    [batch] = line.send("embed")
    aside(line, line.claim(batch), 10)
    assert month(line) == (0.0, 10.0)
    end(line, order, delivered((claim, 8)))
    assert month(line) == (8.0, 0.0)


def test_a_batch_that_comes_back_before_it_is_ordered_holds_its_price_once(line):
    [claim] = claims(line, "a")
    aside(line, claim, 10)
    line.now += 2 * DAY_S
    [batch] = line.send("embed")
    aside(line, line.claim(batch), 12)
    assert month(line) == (0.0, 12.0)


def test_what_is_cancelled_before_it_is_ordered_gives_its_price_back(line):
    first, second = claims(line, "a", "b")
    aside(line, first, 10)
    aside(line, second, 20)
    cancel_job(line.catalog, tenant=TENANT, job_id=first.versions[0].job_id, now=line.now)
    assert give_back_unordered(line.catalog, now=line.now) == 1
    assert give_back_unordered(line.catalog, now=line.now) == 0
    assert month(line) == (0.0, 20.0)


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_made_for_a_job_that_was_cancelled_is_charged_as_estimated(line, whole):
    first, second = claims(line, "a", "b")
    aside(line, first, 10)
    aside(line, second, 20)
    order = ordered(line)
    gone, kept = first.versions[0].job_id, second.versions[0].job_id
    cancel_job(line.catalog, tenant=TENANT, job_id=gone, now=line.now)
    assert give_back_unordered(line.catalog, now=line.now) == 0, "the provider is making it"
    end(line, order, delivered((second, 18), whole=whole))
    charged = {f"job:{gone}": (10.0, 0.0)} if whole else {}
    assert money(line).items() >= {f"job:{kept}": (18.0, 0.0), **charged}.items()
    assert month(line) == (28.0 if whole else 18.0, 0.0)
    assert get_job(line.catalog, tenant=TENANT, job_id=kept).cost_usd == pytest.approx(18.0)


def test_the_batches_of_an_order_are_read_in_a_few_statements_however_many_there_are(line):
    for claim in claims(line, "a", "b", "c"):
        aside(line, claim, 1)
    order, statements = ordered(line), []

    def note(_connection, _cursor, statement, _parameters, _context, _many) -> None:
        statements.append(statement)

    sa.event.listen(line.catalog._reader, "before_cursor_execute", note)
    members = ledger.read_members(line.catalog, order)
    sa.event.remove(line.catalog._reader, "before_cursor_execute", note)
    assert [len(one.jobs) for one in members] == [1, 1, 1]
    assert len([one for one in statements if one.startswith("SELECT")]) == 2


def test_halves_of_an_order_and_what_had_no_room_in_it_keep_their_money(line):
    found = claims(line, "a", "b", "c")
    for claim, tokens in zip(found, (1, 10, 100), strict=True):
        aside(line, claim, tokens)
    order = ordered(line)
    members = ledger.read_members(line.catalog, order)
    ledger.detach(line.catalog, order, [members[-1].batch_id], now=line.now)
    ledger.split_order(line.catalog, order, [members[1].batch_id], told="too large", now=line.now)
    held = {claim.batch_id: tokens for claim, tokens in zip(found, (1, 10, 100), strict=True)}
    with line.catalog.read() as connection:
        rows = connection.execute(sa.select(reservations)).all()
    orders = {BatchId(row.batch_id): row.order_id for row in rows}
    assert {row.batch_id: row.tokens for row in rows} == held
    assert orders[members[-1].batch_id] is None
    assert len({orders[one.batch_id] for one in members}) == 3
    for _ in range(2):
        order = ledger.claim_order(line.catalog, owner="desk", lease_s=600.0, now=line.now)
        end(line, order)
    assert month(line) == (0.0, float(held[members[-1].batch_id]))


def test_a_price_that_nobody_knows_is_ordered_where_there_is_no_budget(line):
    first, second = claims(line, "a", "b")
    aside(line, first, price=None)
    line.set_budget(month=1_000.0)
    with pytest.raises(OverBudget, match="nobody knows the price"):
        aside(line, second, price=None)
    assert money(line) == {}
