"""A re-embedding without money waits as a job does, and goes on when its budget is raised. On both databases."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.storage import ledger
from penstock.storage.catalog.progress import HeldUp
from penstock.storage.catalog.tenants import change_tenant
from penstock.storage.costs import Payee, Until, reserve
from penstock.storage.errors import OverBudget
from penstock.storage.ids import JobId
from penstock.storage.reembedding.commands import pause, resume, set_budget
from penstock.storage.reembedding.slices import OnTheirWay
from penstock.storage.reembedding.steps import AHEAD, AHEAD_OF_ORDERS, Situation

from ..reembedded_line import ReembeddedLine, reembedded_line
from ..role_line import ACME
from .test_reembedding import filled, on_sqlite

LATER_S = 365 * 86_400.0


@pytest.fixture
def line(tmp_path: Path, catalog_url: str) -> Iterator[ReembeddedLine]:
    with reembedded_line(tmp_path / "data", catalog_url=catalog_url) as made:
        yield made


def refuse_slice(line: ReembeddedLine, *, budget: ledger.Postponed = "job_budget") -> None:
    """Let the first slice wait as a worker does whose call a budget has no room for."""
    line.stalled = {"embed"}
    line.step()
    [batch] = due(line)
    claim = ledger.claim(line.catalog, batch, owner="w", lease_s=60.0, now=time.time(), max_attempts=3)
    told = {"error": "no room", "counted": False, "postponed": budget}
    ledger.retry_later(line.catalog, claim, now=time.time(), delay_s=ledger.UNTIL_RAISED_S, **told)
    line.stalled = set()


def due(line: ReembeddedLine) -> list[str]:
    at = time.time() + LATER_S
    found = ledger.take_ready(line.catalog, stage="embed", now=at, limit=4, resend_after_s=60.0)
    return [batch.id for batch in found]


def test_it_waits_with_the_reason_and_goes_on_when_its_budget_is_raised(line):
    filled(line, 2)
    line.begin(budget_usd=0.5)
    refuse_slice(line)
    assert line.info().held_up == HeldUp(paused=True, reason="no room", next_attempt_at=None)
    assert due(line) == []
    assert set_budget(line.catalog, line.current(), budget_usd=2.0).budget_usd == 2.0
    assert line.until("switched").held_up is None


@on_sqlite
def test_the_same_again_with_another_budget_raises_it_and_without_one_leaves_it(line):
    filled(line, 2)
    begun = line.begin(budget_usd=0.5)
    refuse_slice(line)
    assert line.begin().budget_usd == 0.5
    assert due(line) == []
    again = line.begin(budget_usd=1.0)
    assert (again.id, again.budget_usd) == (begun.id, 1.0)
    assert len(due(line)) == 1


def test_money_does_not_end_a_pause_and_a_pause_does_not_outlive_its_end(line):
    filled(line, 2)
    line.begin()
    refuse_slice(line, budget="month_budget")
    pause(line.catalog, line.current(), now=time.time())
    change_tenant(line.catalog, ACME, monthly_budget_usd=9.0)
    set_budget(line.catalog, line.current(), budget_usd=9.0)
    assert due(line) == []
    resume(line.catalog, line.current(), now=time.time())
    assert line.until("switched").chunks_copied > 0


@on_sqlite
def test_what_it_may_cost_is_kept_by_its_calls_and_a_refusal_says_what_to_do(line):
    info = line.begin(budget_usd=10.0)
    payee = Payee(ACME, line.collection.id, "openai/m", 1e6, {JobId(info.id): 1})
    until = Until(time.time() + 60.0)
    reserve(line.catalog, payee, 8, held=until, now=time.time())
    with pytest.raises(OverBudget, match="penstock reembed docs --set-budget USD") as refused:
        reserve(line.catalog, payee, 3, held=until, now=time.time())
    assert (refused.value.budget, refused.value.job_id) == ("job_budget", info.id)
    reserve(line.catalog, payee, 2, held=until, now=time.time())


@on_sqlite
def test_the_first_copy_for_economy_is_planned_far_enough_ahead_to_fill_orders(line):
    info = replace(line.begin(economy=True), source_version=1)

    def plans(info, on_their_way: int) -> bool:
        return Situation(info, OnTheirWay(on_their_way, (), ())).next_step == "plan"

    assert plans(info, AHEAD_OF_ORDERS // 2 - 1)
    assert not plans(info, AHEAD_OF_ORDERS // 2)
    for embedded_at_once in (replace(info, economy=False), replace(info, base_version=1)):
        assert plans(embedded_at_once, AHEAD // 2 - 1)
        assert not plans(embedded_at_once, AHEAD // 2)
