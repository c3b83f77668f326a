"""A batch that may kill its process works there alone, and costs no other one an attempt."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from penstock.storage import ledger
from penstock.workers.company import Company

PATIENCE_S = 20.0


@dataclass
class Batch:
    """A batch to work on, and who else was there when it was claimed."""

    suspect: bool = False
    attempts: int = 0

    def claim(self, in_company: bool):
        if in_company and self.suspect:
            raise ledger.MustBeAlone
        self.attempts += 1
        return self


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as threads:
        yield threads


def enter(company, batch, entered, may_leave):
    with company.joined(batch.claim):
        entered.set()
        assert may_leave.wait(PATIENCE_S)


def start(pool, company, batch):
    entered, may_leave = threading.Event(), threading.Event()
    return pool.submit(enter, company, batch, entered, may_leave), entered, may_leave


def test_ordinary_batches_work_side_by_side(pool):
    company = Company()
    works = [start(pool, company, Batch()) for _ in range(3)]
    assert all(entered.wait(PATIENCE_S) for _, entered, _ in works)
    for work, _, may_leave in works:
        may_leave.set()
        work.result(PATIENCE_S)


def test_while_a_suspect_is_worked_on_nobody_else_claims(pool):
    company, suspect, other = Company(), Batch(suspect=True), Batch()
    alone, entered, may_leave = start(pool, company, suspect)
    assert entered.wait(PATIENCE_S)
    waiting, other_entered, other_may_leave = start(pool, company, other)
    other_may_leave.set()

    assert not other_entered.wait(0.05)
    assert other.attempts == 0
    may_leave.set()
    alone.result(PATIENCE_S)
    waiting.result(PATIENCE_S)
    assert other.attempts == 1


def test_a_suspect_is_not_claimed_before_the_others_are_done(pool):
    company, suspect = Company(), Batch(suspect=True)
    first, entered, may_leave = start(pool, company, Batch())
    assert entered.wait(PATIENCE_S)
    waiting, suspect_entered, suspect_may_leave = start(pool, company, suspect)
    suspect_may_leave.set()

    assert not suspect_entered.wait(0.05)
    assert suspect.attempts == 0
    may_leave.set()
    first.result(PATIENCE_S)
    waiting.result(PATIENCE_S)
    assert suspect.attempts == 1


@pytest.mark.parametrize("suspect", [False, True])
def test_whoever_fails_leaves_the_process_to_the_others(suspect):
    company = Company()
    with pytest.raises(ZeroDivisionError), company.joined(Batch(suspect=suspect).claim):
        raise ZeroDivisionError
    with company.joined(Batch(suspect=True).claim) as taken:  # would wait for ever
        assert taken.attempts == 1


def test_when_there_is_nothing_to_claim_the_next_may_try():
    company = Company()
    with company.joined(lambda _in_company: None) as taken:
        assert taken is None
        with company.joined(Batch().claim) as other:
            assert other.attempts == 1
