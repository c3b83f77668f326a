"""Counts of what differs between two versions: made once, whoever asks for them at the same time."""

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.api.http.comparisons import Comparisons
from penstock.storage.errors import Damaged
from penstock.storage.segments.differences import ChangeCounts

NAMES = ("before", "after")
COUNTS = ChangeCounts(added=1, changed=2, removed=3)
PATIENCE_S = 30.0


class Slow:
    """A comparison that takes until it is allowed to end."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()
        self.times = 0
        self.error = error

    def counts(self) -> ChangeCounts:
        self.times += 1
        self.began.set()
        assert self.may_end.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return COUNTS


class Unwanted:
    """A comparison that somebody else makes already."""

    def counts(self) -> ChangeCounts:
        raise AssertionError("it is counted already")


class Watched(Comparisons):
    """Says when a second caller has come as far as waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()
        watched = self

        class Counts(OrderedDict):
            def move_to_end(self, key: object, last: bool = True) -> None:
                super().move_to_end(key, last)
                watched.waits.set()

        self._counts = Counts()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_two_who_ask_at_once_are_answered_by_one_count(threads):
    comparisons, slow = Watched(), Slow()
    first = threads.submit(comparisons.counts, NAMES, slow)
    assert slow.began.wait(PATIENCE_S)
    second = threads.submit(comparisons.counts, NAMES, Unwanted())
    assert comparisons.waits.wait(PATIENCE_S) or second.done()
    slow.may_end.set()
    assert first.result(PATIENCE_S) == second.result(PATIENCE_S) == COUNTS
    assert comparisons.counts(NAMES, Unwanted()) == COUNTS
    assert slow.times == 1


def test_a_count_that_failed_is_told_to_all_who_wait_and_made_anew_for_the_next(threads):
    comparisons, broken = Watched(), Slow(error=Damaged("a file is gone"))
    first = threads.submit(comparisons.counts, NAMES, broken)
    assert broken.began.wait(PATIENCE_S)
    second = threads.submit(comparisons.counts, NAMES, Unwanted())
    assert comparisons.waits.wait(PATIENCE_S) or second.done()
    broken.may_end.set()
    for waiting in (first, second):
        with pytest.raises(Damaged, match="a file is gone"):
            waiting.result(PATIENCE_S)
    whole = Slow()
    whole.may_end.set()
    assert comparisons.counts(NAMES, whole) == COUNTS


def test_another_pair_is_counted_meanwhile(threads):
    comparisons, slow, other = Comparisons(), Slow(), Slow()
    first = threads.submit(comparisons.counts, NAMES, slow)
    assert slow.began.wait(PATIENCE_S)
    other.may_end.set()
    assert comparisons.counts(("after", "before"), other) == COUNTS
    assert not first.done()
    slow.may_end.set()
    assert first.result(PATIENCE_S) == COUNTS


def test_only_so_many_are_remembered():
    comparisons = Comparisons(remembered=2)
    made = [Slow() for _ in range(4)]
    for one in made:
        one.may_end.set()
    for number, one in enumerate(made[:3]):
        comparisons.counts((str(number), "after"), one)
    comparisons.counts(("2", "after"), Unwanted())
    comparisons.counts(("0", "after"), made[3])
    assert made[3].times == 1
