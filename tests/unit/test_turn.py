"""The turn of a chunk batch ends when it has taken long and somebody waits, or at once for what is short."""

from penstock.workers.turn import LONGEST_S, LOOK_S, TURN_S, Turn


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_turn_goes_on_for_its_longest_time_where_nobody_waits():
    clock = Clock()
    turn = Turn(lambda _: False, clock=clock)
    clock.now += LONGEST_S - 0.001
    assert not turn.is_over()
    clock.now += 0.002
    assert turn.is_over()


def test_a_turn_ends_early_for_something_short_and_in_time_for_anything_else():
    clock = Clock()
    asked: list[bool] = []

    def others_wait(had_turn: bool) -> bool:
        asked.append(had_turn)
        return had_turn

    turn = Turn(others_wait, clock=clock)
    while not turn.is_over():
        clock.now += 0.001
    assert TURN_S < clock.now - 100.0 <= TURN_S + LOOK_S + 0.002
    assert asked == [False] * (len(asked) - 1) + [True]

    short = Turn(lambda _: True, clock=clock)
    clock.now += LOOK_S + 0.001
    assert short.is_over()


def test_the_ledger_is_asked_once_in_a_while_and_not_after_each_document():
    clock, asked = Clock(), 0

    def ask(_had_turn: bool) -> bool:
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
