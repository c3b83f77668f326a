"""How long the workers wait: backoff, pacing, leases and alarms."""

import signal
import threading
import time

import pytest

from penstock.workers.alarms import Alarm
from penstock.workers.backoff import Outages, full_jitter
from penstock.workers.leases import LeaseKeeper
from penstock.workers.pacing import LEAST_S, LOOK_S, MOST_S, SHARE, Pace


def test_full_jitter_stays_below_the_doubled_delay_and_the_longest():
    for attempt, ceiling in [(1, 1.0), (2, 2.0), (5, 16.0), (40, 60.0), (10_000, 60.0)]:
        delays = [full_jitter(attempt, first_s=1.0) for _ in range(200)]
        assert min(delays) >= 0.0
        assert max(delays) <= ceiling
        assert max(delays) > ceiling / 2


def test_the_providers_own_wish_is_obeyed():
    assert all(full_jitter(1, first_s=1.0, at_least_s=30.0) >= 30.0 for _ in range(50))


def test_an_outage_slows_down_and_its_end_is_forgotten():
    outages = Outages()
    long = max(outages.delay_s("minilm", first_s=1.0, wish_s=None) for _ in range(40))
    outages.over("minilm")

    assert long > 8.0
    assert outages.delay_s("minilm", first_s=1.0, wish_s=None) <= 1.0
    assert outages.delay_s("static", first_s=1.0, wish_s=None) <= 1.0


def test_a_generation_rests_after_its_publish_the_longer_the_more_that_cost():
    now = [100.0]
    pace = Pace(clock=lambda: now[0], sleep=lambda _s: None)

    assert pace.resting() == set()
    for took_s, expected_s in [(0.001, LEAST_S), (0.1, SHARE * 0.1), (10.0, MOST_S)]:
        pace.published("gen_a", took_s)
        now[0] += expected_s - 0.001
        assert pace.resting() == {"gen_a"}
        now[0] += 0.002
        assert pace.resting() == set()


def test_nobody_waits_because_another_generation_was_published_and_its_end_is_not_slept_through():
    now = [100.0]
    slept: list[float] = []
    pace = Pace(clock=lambda: now[0], sleep=slept.append)
    pace.doze()
    assert slept == []

    pace.published("gen_a", 10.0)
    assert "gen_b" not in pace.resting()
    pace.doze()
    now[0] += MOST_S - 0.001
    pace.doze()
    assert slept == pytest.approx([LOOK_S, 0.001])


def test_a_lease_is_renewed_while_held_and_not_after():
    renewed: list[str] = []
    twice = threading.Event()

    def renew(lease: str) -> bool:
        renewed.append(lease)
        if len(renewed) >= 2:
            twice.set()
        return True

    keeper = LeaseKeeper(renew, every_s=0.01)
    with keeper.hold("batch"):
        assert twice.wait(5)
    count = len(renewed)
    keeper.close()

    assert set(renewed) == {"batch"}
    assert len(renewed) <= count + 1  # one may have been under way


def test_a_lost_lease_is_kept_no_longer_and_a_failed_renewal_is_tried_again():
    answers = iter([RuntimeError("the catalog is away"), True, False])
    asked = []
    lost = threading.Event()

    def renew(_lease: str) -> bool:
        asked.append(time.monotonic())
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        if not answer:
            lost.set()
        return answer

    keeper = LeaseKeeper(renew, every_s=0.005)
    with keeper.hold("batch"):
        assert lost.wait(5)
        time.sleep(0.03)  # several turns in which nothing may be asked
    keeper.close()

    assert len(asked) == 3


def spin() -> None:
    while True:
        pass


@pytest.fixture
def alarm():
    before = signal.getsignal(signal.SIGALRM)
    yield Alarm()
    signal.signal(signal.SIGALRM, before)


@pytest.mark.timeout(method="thread")  # the other method sets alarms itself
def test_the_alarm_interrupts_what_takes_too_long_and_nothing_else(alarm):
    with pytest.raises(TimeoutError), alarm.after(0.02):
        spin()
    with alarm.after(0.02):
        pass
    time.sleep(0.03)
