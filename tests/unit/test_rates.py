"""Rate limits shared by processes, against a fake server whose clock the test moves: what is granted, and to whom."""

import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import fakeredis
import pytest

from penstock.storage.rates import Asked, Limiter, Line, Rates, Told, read_rates
from penstock.storage.rates.alone import UNKNOWN_PEERS
from penstock.storage.rates.limiter import PAUSE_S
from penstock.storage.rates.limits import key_digest

KEY = "sk-secret-of-the-test"
NONE = Rates()


class Clock:
    """Seconds of the server and of every process."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("fakeredis.commands_mixins.server_mixin.time", SimpleNamespace(time=made))
    return made


@pytest.fixture
def process(fake_server: fakeredis.FakeServer, clock: Clock) -> Iterator[Callable[..., Limiter]]:
    """Make the limiter of one more process."""
    made: list[Limiter] = []

    def make(*, requests: float | None = None, tokens: float | None = None, expected: Rates = NONE) -> Limiter:
        line = Line("openai/m", "https://endpoint/v1", key_digest(KEY), Rates(requests, tokens), expected)
        client = fakeredis.FakeRedis(server=fake_server)
        made.append(Limiter(client, line, process=f"p{len(made)}", clock=clock, dice=lambda: 1.0))
        return made[-1]

    yield make
    for limiter in made:
        limiter.close()


def asked(*, requests: int = 1, tokens: int = 10, urgent: bool = False, most_s: float = 0.0) -> Asked:
    return Asked(requests, tokens, urgent, most_s)


def granted_in(clock: Clock, limiters: list[Limiter], seconds: float, *, step_s: float = 0.5, **values: int) -> int:
    """Let every process ask for all it can for so long; return how many calls were granted."""
    count, end = 0, clock.now + seconds
    while clock.now < end:
        for limiter in limiters:
            while limiter.take(asked(**values)).granted:
                count += 1
        clock.now += step_s
    return count


def exhaust(*limiters: Limiter) -> int:
    """Let every process ask for all it can now; return how many calls were granted."""
    count = 0
    for limiter in limiters:
        while limiter.take(asked()).granted:
            count += 1
    return count


def recover(clock: Clock, limiter: Limiter) -> None:
    """Let the time pass after which the whole rate is there."""
    limiter.take(asked())
    clock.now += 600


def test_processes_together_ask_as_often_as_is_set_and_no_more(clock, process):
    limiters = [process(requests=120) for _ in range(3)]
    recover(clock, limiters[0])
    granted_in(clock, limiters, 10)  # what was saved up

    assert granted_in(clock, limiters, 30) == pytest.approx(60, abs=3)


def test_tokens_are_limited_as_requests_are(clock, process):
    limiters = [process(requests=100_000, tokens=6_000) for _ in range(2)]
    recover(clock, limiters[0])
    granted_in(clock, limiters, 10, tokens=50)

    assert granted_in(clock, limiters, 30, tokens=50) == pytest.approx(60, abs=3)


def test_a_call_larger_than_all_that_is_saved_up_goes_when_that_is_full_and_is_paid_off_after_it(clock, process):
    limiter = process(tokens=60_000)  # 10,000 are saved up at most
    recover(clock, limiter)

    assert limiter.take(asked(tokens=40_000)).granted
    after = limiter.take(asked(tokens=10))
    assert not after.granted
    assert 25 < after.wait_s < 35


def test_who_is_told_to_wait_is_granted_then(clock, process):
    limiter = process(requests=60)
    while (answer := limiter.take(asked(requests=5))).granted:
        pass
    clock.now += answer.wait_s + 0.001

    assert limiter.take(asked(requests=5)).granted


def test_what_may_wait_a_little_is_granted_now_for_later_and_the_next_one_waits_behind_it(clock, process):
    limiter = process(requests=600)
    recover(clock, limiter)
    exhaust(limiter)
    first, second = (limiter.take(asked(most_s=2.0)) for _ in range(2))

    assert first.granted
    assert 0 < first.wait_s < second.wait_s <= 2.0


def test_searches_are_granted_at_once_while_batches_take_all_they_can(clock, process):
    limiter, searching = process(requests=60, tokens=60_000), process(requests=60, tokens=60_000)
    recover(clock, limiter)
    for _ in range(10):
        granted_in(clock, [limiter], 4, tokens=3_000)
        search = searching.take(asked(urgent=True))
        assert (search.granted, search.wait_s) == (True, 0)


def test_searches_alone_cannot_ask_more_often_than_is_set(clock, process):
    limiter, count = process(requests=60), 0
    recover(clock, limiter)
    while limiter.take(asked(urgent=True)).granted:
        count += 1
    for _ in range(120):
        clock.now += 0.5
        count += limiter.take(asked(urgent=True)).granted

    assert count == pytest.approx(60 + 10, abs=3)


def test_what_the_endpoint_says_counts_and_never_more_than_is_set(clock, process):
    free, bound = process(expected=Rates(3_000, 1e6)), process(requests=100)
    free.answered(Told(Rates(6_000, 2e6)))
    assert free.take(asked()).rates == Rates(3_000, 1e6), "half of it at first"
    clock.now += 600

    assert free.take(asked()).rates == Rates(6_000, 2e6)
    assert bound.take(asked()).rates == Rates(100, 2e6)


def test_what_the_endpoint_has_left_counts_for_everybody_for_others_may_ask_with_the_key(clock, process):
    one, other = process(requests=600), process(requests=600)
    recover(clock, one)
    one.answered(Told(Rates(600, None), Rates(2, None)))

    assert exhaust(one, other) <= 2


def test_what_was_left_some_time_ago_is_reckoned_with_what_came_since(clock, process):
    one = process(requests=600)
    recover(clock, one)
    one.answered(Told(Rates(600, None), Rates(0, None)))
    clock.now += 10

    assert exhaust(one) > 50


def test_a_refusal_halves_the_rate_once_for_all_calls_that_could_not_know_of_it_and_it_comes_back_slowly(
    clock, process
):
    one, other = process(requests=6_000), process(requests=6_000)
    recover(clock, one)
    taken = [limiter.take(asked()) for limiter in (one, other, one)]
    clock.now += 0.1
    for limiter, answer in zip((one, other, one), taken, strict=True):
        limiter.refused(answer, wish_s=0.0)

    def rate() -> float:
        return other.take(asked(most_s=60)).rates.requests

    assert rate() == pytest.approx(3_000, rel=0.01)
    clock.now += 60
    assert rate() == pytest.approx(3_600, rel=0.01)
    clock.now += 300
    assert rate() == pytest.approx(6_000)


def test_each_later_refusal_halves_it_again_and_some_is_always_left(clock, process):
    limiter = process(requests=6_000)
    recover(clock, limiter)
    for _ in range(40):
        clock.now += 0.5
        limiter.refused(limiter.take(asked(most_s=60)), wish_s=0.0)

    assert limiter.take(asked(most_s=60)).rates.requests == pytest.approx(6_000 / 64, rel=0.1)


def test_while_the_endpoint_wishes_to_be_left_alone_nobody_asks_it(clock, process):
    one, other, late = process(), process(), process()
    one.refused(one.take(asked()), wish_s=30.0)

    assert not one.take(asked(urgent=True)).granted
    answer = other.take(asked())
    assert (answer.granted, answer.blocked) == (False, True)
    assert 29 < answer.wait_s < 33
    clock.now += 29.9
    assert not late.take(asked()).granted
    clock.now += 3
    assert late.take(asked()).granted


def test_who_waited_for_its_turn_does_not_run_into_a_refusal_that_came_meanwhile(clock, process):
    one, other = process(requests=600), process(requests=600)
    recover(clock, one)
    exhaust(one)
    waiting = asked(most_s=2.0)
    taken = one.take(waiting)
    other.refused(other.take(asked(most_s=2.0)), wish_s=10.0)
    clock.now += taken.wait_s
    confirmed = one.confirm(waiting, taken)

    assert (confirmed.granted, confirmed.blocked) == (False, True)
    assert confirmed.wait_s > 8


def test_without_a_wish_the_pause_is_random_and_doubles(clock, process):
    limiter, pauses = process(), []
    for _ in range(9):
        pauses.append(limiter.refused(limiter.take(asked(most_s=1e9)), wish_s=None))
        clock.now += pauses[-1] + 0.1

    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60], abs=0.01)


def test_where_nobody_knows_a_limit_a_refusal_halves_what_was_asked_for(clock, process):
    limiter, dice = process(), random.Random(3)
    for _ in range(200):  # 100 a minute
        assert limiter.take(asked()).granted
        clock.now += 1.2 * dice.random()
    limiter.refused(limiter.take(asked()), wish_s=0.0)
    rates = limiter.take(asked(most_s=1e9)).rates

    assert rates.requests == pytest.approx(50, rel=0.3)
    assert rates.tokens == pytest.approx(500, rel=0.3)
    for _ in range(60):  # with no further refusal
        clock.now += 60
        limiter.take(asked(most_s=1e9))
    assert limiter.take(asked()).rates == Rates()


def test_without_the_server_all_together_ask_half_as_often(clock, process, fake_server):
    limiters = [process(requests=600) for _ in range(4)]
    recover(clock, limiters[0])
    for limiter in [*limiters, *limiters]:  # now each knows that there are four
        limiter.take(asked())
    fake_server.connected = False
    granted_in(clock, limiters, 10)

    assert granted_in(clock, limiters, 60) == pytest.approx(300, rel=0.05)


def test_a_process_that_never_met_the_server_assumes_others(clock, process, fake_server):
    fake_server.connected = False
    limiter = process(requests=600)
    granted_in(clock, [limiter], 20)

    assert granted_in(clock, [limiter], 60) == pytest.approx(300 / UNKNOWN_PEERS, rel=0.1)


def test_without_the_server_a_search_goes_before_batches_and_a_wish_is_obeyed(clock, process, fake_server):
    fake_server.connected = False
    limiter = process(requests=600)
    granted_in(clock, [limiter], 20)
    search = limiter.take(asked(urgent=True))
    assert (search.granted, search.wait_s) == (True, 0)

    limiter.refused(search, wish_s=30.0)
    clock.now += 29
    assert not limiter.take(asked(urgent=True)).granted
    clock.now += 2
    assert limiter.take(asked(urgent=True)).granted


def test_a_server_that_lost_its_data_begins_at_half_the_rate_with_nothing_saved_up(clock, process, fake_server):
    limiter = process(requests=6_000)
    recover(clock, limiter)
    with fakeredis.FakeRedis(server=fake_server) as client:
        client.flushall()

    assert exhaust(limiter) < 10
    assert limiter.take(asked()).rates.requests == pytest.approx(3_000, rel=0.01)


def test_a_server_that_comes_back_is_asked_again_after_a_pause(clock, process, fake_server):
    limiter = process(requests=6_000)
    fake_server.connected = False
    limiter.take(asked())
    fake_server.connected = True
    assert limiter.take(asked()).taken_at == 0
    clock.now += PAUSE_S

    assert limiter.take(asked()).taken_at > 0


def test_other_models_keys_and_endpoints_have_limits_of_their_own(clock, process, fake_server):
    line = process(requests=60)._line
    others = [
        Line("openai/other", line.endpoint, line.key_digest),
        Line(line.model, "https://other/v1", line.key_digest),
        Line(line.model, line.endpoint, key_digest("another key")),
    ]

    assert len({line.name, *(other.name for other in others)}) == 4


def test_the_key_is_nowhere_on_the_server(clock, process, fake_server):
    limiter = process(requests=60)
    limiter.refused(limiter.take(asked()), wish_s=1.0, told=Told(Rates(60, 60)))
    with fakeredis.FakeRedis(server=fake_server) as client:
        held = " ".join(str((key, client.dump(key))) for key in client.scan_iter())

    assert "openai/m" in held
    assert "secret" not in held


def test_the_overview_tells_limits_how_much_of_them_is_asked_for_and_what_became_of_calls(clock, process, fake_server):
    limiter = process(requests=600)
    recover(clock, limiter)
    exhaust(limiter)
    limiter.take(asked(most_s=2.0))
    limiter.refused(limiter.take(asked(most_s=2.0)), wish_s=20.0)
    with fakeredis.FakeRedis(server=fake_server) as client:
        (line,) = read_rates(client)

    assert (line.model, line.endpoint) == ("openai/m", "https://endpoint/v1")
    assert (line.requests_per_minute, line.tokens_per_minute) == (600, None)
    assert line.percent == 50
    assert line.blocked_s == pytest.approx(20)
    assert line.granted > 80
    assert (line.delayed, line.held, line.refused) == (2, 2, 1)


def test_nothing_is_kept_for_ever(clock, process, fake_server):
    process(requests=60).take(asked())
    with fakeredis.FakeRedis(server=fake_server) as client:
        lasting = [key for key in client.scan_iter() if client.ttl(key) < 0]

    assert lasting == [b"penstock:rates"]


def test_where_no_limit_is_known_nothing_is_told_to_be_slowed(clock, process, fake_server):
    process().take(asked())
    with fakeredis.FakeRedis(server=fake_server) as client:
        (line,) = read_rates(client)

    assert (line.requests_per_minute, line.tokens_per_minute, line.percent) == (None, None, 100.0)
