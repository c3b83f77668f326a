"""When a remote provider is asked and when it is left alone: the breaker, the limits, and what its headers say."""

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from penstock.pipeline.embedding import DeclaredModel, EmbeddingOptions, headers, open_embedder
from penstock.pipeline.embedding.breaker import FAILURES, HANGING_S, Begun, Breaker, Refusal
from penstock.pipeline.embedding.remote import Remote
from penstock.pipeline.embedding.traffic import SEARCH_WAIT_S, WAIT_S, Traffic
from penstock.pipeline.errors import InputRejected, ProviderHeld, ProviderUnavailable, RateLimited
from penstock.storage.rates import Answer, Asked, Rates, Told

from ..embedding_endpoint import DIMENSIONS, POISON, Endpoint


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def begun(breaker: Breaker) -> Begun:
    found = breaker.begin()
    assert isinstance(found, Begun), found
    return found


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.end(begun(breaker), answered=False)


def made(clock: Clock, **options) -> Breaker:
    return Breaker(**{"first_s": 4.0, "clock": clock, "dice": lambda: 1.0} | options)


def test_a_provider_that_fails_some_times_in_a_row_is_left_alone_and_an_answer_between_begins_the_count_anew():
    breaker = made(Clock())
    fail(breaker, FAILURES - 1)
    breaker.end(begun(breaker), answered=True)
    fail(breaker, FAILURES - 1)
    assert breaker.state == "closed"

    fail(breaker, 1)
    refusal = breaker.begin()
    assert isinstance(refusal, Refusal)
    assert refusal.wait_s == pytest.approx(4.0)
    assert "did not answer 3 times in a row" in refusal.reason


def test_after_a_while_one_caller_tries_and_the_others_are_refused_until_it_knows():
    clock = Clock()
    breaker = made(clock)
    fail(breaker, FAILURES)
    clock.now += 4.1
    trying = begun(breaker)

    assert trying.trying
    assert isinstance(breaker.begin(), Refusal)
    breaker.end(trying, answered=True)
    assert breaker.state == "closed"
    assert not begun(breaker).trying


def test_each_try_that_fails_doubles_the_time_up_to_a_minute():
    clock, waits = Clock(), []
    breaker = made(clock)
    fail(breaker, FAILURES)
    for _ in range(6):
        refusal = breaker.begin()
        assert isinstance(refusal, Refusal)
        waits.append(refusal.wait_s)
        clock.now += refusal.wait_s
        fail(breaker, 1)

    assert waits == pytest.approx([4, 8, 16, 32, 60, 60])


def test_a_try_of_which_nobody_knows_how_it_ended_is_followed_by_another():
    clock = Clock()
    breaker = made(clock)
    fail(breaker, FAILURES)
    clock.now += 4.1
    breaker.end(begun(breaker), answered=None)

    assert begun(breaker).trying


def test_while_a_call_has_had_no_answer_for_long_nobody_else_asks():
    clock = Clock()
    breaker = made(clock)
    hanging = begun(breaker)
    clock.now += HANGING_S + 1
    assert isinstance(breaker.begin(), Refusal)

    breaker.moved(hanging)
    begun(breaker)


def test_a_provider_that_is_always_slow_does_not_count_as_hanging():
    clock = Clock()
    breaker = made(clock)
    for _ in range(20):
        call = begun(breaker)
        clock.now += 12
        breaker.moved(call)
        breaker.end(call, answered=True)
    begun(breaker)
    clock.now += 30

    begun(breaker)


def test_calls_beyond_those_that_leave_room_for_others_wait_for_one_to_end():
    breaker = Breaker(most_calls=lambda: 1)
    first = begun(breaker)
    refusal = breaker.begin(patience_s=0.01)
    assert isinstance(refusal, Refusal)
    assert refusal.full

    found: list[Begun | Refusal] = []
    waiting = threading.Thread(target=lambda: found.append(breaker.begin(patience_s=30)))
    waiting.start()
    breaker.end(first, answered=True)
    waiting.join(timeout=30)
    assert isinstance(found[0], Begun)


class Scripted:
    """`Limits` that answer what they are told to, and keep what they hear."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []
        self.heard: list[Told] = []
        self.refusals: list[tuple[Answer, float | None, Told]] = []
        self.confirmed = True

    def take(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        return self.answers.pop(0) if self.answers else Answer(True, 0.0, False, Rates())

    def confirm(self, asked: Asked, taken: Answer) -> Answer:
        return Answer(self.confirmed, 7.0, True, taken.rates)

    def answered(self, told: Told) -> None:
        self.heard.append(told)

    def refused(self, taken: Answer, *, wish_s: float | None, told: Told) -> float:
        self.refusals.append((taken, wish_s, told))
        return wish_s or 0.0

    def close(self) -> None: ...


@pytest.fixture
def limits() -> Scripted:
    return Scripted()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def remote(endpoint: Endpoint, limits: Scripted, slept: list[float]) -> Iterator[Remote]:
    options = EmbeddingOptions(
        openai_base_url=endpoint.url, batch_tokens=50, timeout_s=5.0, declared=DeclaredModel(dimensions=DIMENSIONS)
    )

    def traffic(_card) -> Traffic:
        return Traffic(endpoint.url, limits=limits, breaker=Breaker(first_s=1e-9), sleep=slept.append)

    embedder = open_embedder("openai/local", options, traffic=traffic)
    assert isinstance(embedder, Remote)
    yield embedder
    embedder.close()


TEXTS = [f"text number {number} of some words" for number in range(40)]
LIMITED = Rates(3_000, None)


def test_room_is_taken_once_for_all_requests_of_a_call(endpoint, remote, limits):
    remote.embed_passages(TEXTS)

    assert len(endpoint.requests) > 3
    (asked,) = limits.asked
    assert asked == Asked(len(endpoint.requests), sum(remote.count_tokens(TEXTS)), urgent=False, most_s=WAIT_S)


def test_a_search_is_urgent(remote, limits):
    remote.embed_query("where is the gate?")

    assert [(one.urgent, one.requests, one.most_s) for one in limits.asked] == [(True, 1, SEARCH_WAIT_S)]


def test_a_short_wait_is_slept_and_a_long_one_is_told_with_the_limit_and_without_a_request(
    endpoint, remote, limits, slept
):
    limits.answers = [Answer(True, 1.5, False, LIMITED), Answer(False, 20.0, False, LIMITED)]
    remote.embed_passages(["x"])
    assert slept == [1.5]

    with pytest.raises(ProviderHeld, match="takes 3,000 requests a minute now") as held:
        remote.embed_passages(["y"])
    assert held.value.retry_after_s == 20.0
    assert len(endpoint.requests) == 1
    assert str(held.value).startswith(endpoint.url)


def test_who_slept_asks_again_whether_somebody_was_refused_meanwhile(endpoint, remote, limits):
    limits.answers, limits.confirmed = [Answer(True, 1.5, False, LIMITED)], False

    with pytest.raises(ProviderHeld, match="left alone") as held:
        remote.embed_passages(["x"])
    assert held.value.retry_after_s == 7.0
    assert endpoint.requests == []


def test_requests_that_are_made_because_one_text_is_refused_take_room_of_their_own(endpoint, remote, limits):
    texts = ["a", "b", POISON, "c"]
    with pytest.raises(InputRejected):
        remote.embed_passages(texts)

    assert sum(one.requests for one in limits.asked) == len(endpoint.requests) > 3


def test_a_429_is_told_to_all_with_what_the_endpoint_said(endpoint, remote, limits):
    told = {"x_ratelimit_limit_requests": "60", "x_ratelimit_remaining_requests": "0"}
    endpoint.fault = lambda handler, _: handler.refuse(429, "slow down", Retry_After="9", **told)
    limits.answers = [Answer(True, 0.0, False, LIMITED, taken_at=5.0)]

    with pytest.raises(RateLimited):
        remote.embed_passages(["x"])
    ((taken, wish_s, said),) = limits.refusals
    assert (taken.taken_at, wish_s, said) == (5.0, 9.0, Told(Rates(60, None), Rates(0, None)))


def test_what_an_endpoint_says_with_an_answer_is_heard(endpoint, remote, limits):
    told = {"x_ratelimit_limit_tokens": "1000000", "x_ratelimit_remaining_tokens": "999990"}
    endpoint.told = told
    remote.embed_passages(["x"])

    assert limits.heard == [Told(Rates(None, 1e6), Rates(None, 999_990))]


def test_a_provider_that_refuses_a_text_or_is_asked_too_often_does_answer(endpoint, remote, limits):
    for _ in range(2 * FAILURES):
        with pytest.raises(InputRejected):
            remote.embed_passages([POISON])
    endpoint.fault = lambda handler, _: handler.refuse(429, "slow down")
    for _ in range(2 * FAILURES):
        with pytest.raises(RateLimited):
            remote.embed_passages(["x"])


def test_a_provider_that_failed_is_tried_with_one_word_before_it_is_given_a_batch(endpoint, remote):
    endpoint.fault = lambda handler, _: handler.refuse(500, "out")
    for _ in range(FAILURES + 1):
        with suppress(ProviderUnavailable):
            remote.embed_passages(TEXTS)
    assert endpoint.requests[-1]["input"] == ["penstock"]

    endpoint.fault = None
    endpoint.requests.clear()
    remote.embed_passages(TEXTS)
    assert endpoint.requests[0]["input"] == ["penstock"]
    remote.embed_passages(["x"])
    assert endpoint.requests[-1]["input"] == ["x"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Told()),
        (
            {
                "x-ratelimit-limit-requests": "3000",
                "x-ratelimit-remaining-requests": "2999",
                "x-ratelimit-reset-requests": "20ms",
                "x-ratelimit-limit-tokens": "1000000",
                "x-ratelimit-remaining-tokens": "900000",
                "x-ratelimit-reset-tokens": "6s",
            },
            Told(Rates(3_000, 1e6), Rates(2_999, 900_000)),
        ),
        (  # of a day: what is used up comes back very slowly
            {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-remaining-requests": "14370",
                "x-ratelimit-reset-requests": "3m0s",
            },
            Told(Rates(10, None), Rates(14_370, None)),
        ),
        ({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "60"}, Told(Rates(60), Rates(60))),
        ({"x-ratelimit-limit-requests": "many", "x-ratelimit-limit-tokens": "-5"}, Told()),
    ],
    ids=["silent", "a minute", "a day", "nothing used up", "no numbers"],
)
def test_limits_are_read_from_headers(given, expected):
    assert headers.told(given) == expected


@pytest.mark.parametrize(
    ("reset", "expected_s"), [("6m0s", 360), ("1h2m", 3_720), ("120ms", 0.12), ("1.5s", 1.5), ("7", 7), ("soon", None)]
)
def test_what_is_used_up_tells_when_to_ask_again(reset, expected_s):
    said = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": reset}

    assert headers.retry_after_s(said) == expected_s
    assert headers.retry_after_s({**said, "x-ratelimit-remaining-tokens": "5"}) is None
    assert headers.retry_after_s({**said, "retry-after": "2"}) == 2
