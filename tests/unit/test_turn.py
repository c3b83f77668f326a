"""The turn of a chunk batch ends when it has taken long, or when something short waits that comes first."""

from penstock.workers.turn import LONGEST_S, LOOK_S, Turn


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_turn_goes_on_for_its_longest_time_where_nothing_short_waits():
    clock = Clock()
    turn = Turn(lambda: False, clock=clock)
    clock.now += LONGEST_S - 0.001
    assert not turn.is_over()
    clock.now += 0.002
    assert turn.is_over()


def test_a_turn_ends_early_for_something_short():
    clock = Clock()
    waits = [False, True]
    turn = Turn(lambda: waits.pop(0), clock=clock)
    clock.now += LOOK_S + 0.001
    assert not turn.is_over()
    clock.now += LOOK_S + 0.001
    assert turn.is_over()


def test_the_ledger_is_asked_once_in_a_while_and_not_after_each_document():
    clock, asked = Clock(), 0

    def ask() -> bool:
        nonlocal asked
        asked += 1
        return False

    turn = Turn(ask, clock=clock)
    documents = 0
    while not turn.is_over():
        documents += 1
        clock.now += 0.001
    assert documents > 100
    assert 0 < asked <= LONGEST_S / LOOK_S
