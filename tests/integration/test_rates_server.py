"""Rate limits on a real server: several clients at once, its death, and two processes that meet one refusal."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from penstock.pipeline.embedding import DeclaredModel, Embedder, EmbeddingOptions, open_embedder
from penstock.pipeline.embedding.traffic import Traffic
from penstock.pipeline.errors import ProviderHeld, RateLimited
from penstock.storage.rates import Asked, Limiter, Line, Rates, read_rates

from ..embedding_endpoint import DIMENSIONS, Endpoint
from ..valkey_server import ValkeyServer

PER_MINUTE = 1_200
ONE = Asked(1, 10, urgent=False, most_s=0.0)


@pytest.fixture
def process(valkey_server: ValkeyServer) -> Iterator[Callable[..., Limiter]]:
    """Make the limiter of one more process, of a model that no other test has."""
    made: list[Limiter] = []
    model = f"openai/{time.monotonic_ns()}"

    def make(rates: Rates = Rates(PER_MINUTE)) -> Limiter:  # noqa: B008 frozen
        line = Line(model, "https://endpoint/v1", "digest", rates)
        client = redis.Redis.from_url(valkey_server.url, socket_timeout=5)
        made.append(Limiter(client, line, process=f"p{len(made)}"))
        return made[-1]

    yield make
    for limiter in made:
        limiter.close()


def test_clients_that_ask_at_once_get_together_what_is_set(process):
    limiters = [process() for _ in range(4)]
    began = time.monotonic()

    def ask(limiter: Limiter) -> int:
        count = 0
        while time.monotonic() < began + 1.5:
            answer = limiter.take(ONE)
            count += answer.granted
            if not answer.granted:
                time.sleep(min(answer.wait_s, 0.02))
        return count

    with ThreadPoolExecutor(4) as threads:
        granted = sum(threads.map(ask, limiters))
    took_s = time.monotonic() - began

    half = PER_MINUTE / 2 / 60  # the server knew nothing before: a search's share is filled, and nothing else saved up
    assert 5 < granted <= 1.05 * half * took_s + 1


def test_a_server_that_is_gone_leaves_each_its_part_and_one_that_is_back_is_asked_again(valkey_server, process):
    limiter = process()
    assert limiter.take(ONE).taken_at > 0
    valkey_server.stop()
    try:
        alone = limiter.take(ONE)
        assert alone.taken_at == 0
        assert alone.rates.requests == pytest.approx(PER_MINUTE / 2 / 2, rel=0.01), "half of what it was just then"
    finally:
        valkey_server.start()
    limiter._resume_at = 0.0  # the pause is over
    again = limiter.take(ONE)

    assert again.taken_at > 0
    assert again.rates.requests == pytest.approx(PER_MINUTE / 2, rel=0.01)


def test_who_was_not_refused_does_not_ask_while_another_was(valkey_server, process, endpoint: Endpoint):
    options = EmbeddingOptions(openai_base_url=endpoint.url, declared=DeclaredModel(dimensions=DIMENSIONS))
    processes: list[Embedder] = [
        open_embedder("openai/m", options, traffic=lambda _: Traffic(endpoint.url, limits=process(Rates())))
        for _ in range(3)
    ]
    try:
        endpoint.fault = lambda handler, _: handler.refuse(429, "slow down", Retry_After="30")
        with pytest.raises(RateLimited):
            processes[0].embed_passages(["x"])
        endpoint.fault = None
        for embedder in processes:
            for ask in (embedder.embed_query, lambda text, to=embedder: to.embed_passages([text])):
                with pytest.raises(ProviderHeld, match="left alone") as held:
                    ask("y")
                assert 20 < held.value.retry_after_s <= 32
    finally:
        for embedder in processes:
            embedder.close()

    assert len(endpoint.requests) == 1
    with redis.Redis.from_url(valkey_server.url) as client:
        (line,) = [line for line in read_rates(client) if line.refused]
    assert line.percent == 50
    assert 20 < line.blocked_s <= 30
