"""What is told of the cache of vectors over HTTP: to a tenant its own counts, to the operator those of all."""

import pytest
import redis

from penstock import client
from penstock.storage.ids import TenantId
from penstock.storage.rates import Asked, Limiter, Line, Rates

from ..cached_texts import TOKENS, USD_PER_TOKEN, get, open_cache, put, some, wanted
from ..http_service import Service, running_service

OTHER = TenantId("other")


@pytest.fixture(scope="module")
def service(tmp_path_factory, valkey_url):
    """Tenant ``default`` looked three texts up and found two, tenant ``other`` one and found none."""
    with redis.Redis.from_url(valkey_url) as server:
        cache, (digests, vectors) = open_cache(server), some(4)
        mine = {"tenant": TenantId("default")}
        put(cache, wanted(digests[:2], **mine), vectors[:2])
        get(cache, wanted(digests[:2], **mine))
        put(cache, wanted(digests[3:], tenant=OTHER), vectors[3:])
    with running_service(tmp_path_factory.mktemp("cache"), cache_url=valkey_url) as running:
        yield running


def test_a_tenant_is_told_its_own_counts_and_no_other_s(service: Service):
    with service.penstock() as penstock:
        mine, theirs = penstock.cache_use("default"), penstock.cache_use("other")

    assert (mine.hits, mine.misses, mine.vectors, mine.hit_rate) == (2, 2, 2, 0.5)
    assert (mine.saved_tokens, mine.saved_usd) == (2 * TOKENS, 2 * TOKENS * USD_PER_TOKEN)
    assert (theirs.hits, theirs.misses, theirs.vectors, theirs.saved_usd) == (0, 1, 1, 0.0)


def test_a_tenant_that_does_not_exist_has_no_counts(service: Service):
    with service.penstock() as penstock, pytest.raises(client.NotFound, match="nobody"):
        penstock.cache_use("nobody")


def test_status_and_metrics_tell_the_sum_and_no_tenant(service: Service):
    with service.penstock() as penstock:
        told = penstock.status().cache
    assert told is not None
    assert (told.hits, told.misses, told.vectors) == (2, 3, 3)
    assert 0 < told.size_bytes < told.limit_bytes == service.settings.embedding.cache_bytes
    text = service.http.get("/metrics").text
    for line in (
        'penstock_cache_lookups_total{outcome="hit"} 2.0',
        'penstock_cache_lookups_total{outcome="miss"} 3.0',
        f"penstock_cache_saved_usd_total {2 * TOKENS * USD_PER_TOKEN}",
        "penstock_cache_vectors 3.0",
    ):
        assert line in text
    assert not [line for line in text.splitlines() if line.startswith("penstock_cache") and "tenant" in line]


def test_without_its_server_the_counts_are_said_to_be_unknown(tmp_path):
    gone = f"unix://{tmp_path}/nobody.sock"
    with running_service(tmp_path, cache_url=gone) as service, service.penstock() as penstock:
        assert (penstock.status().cache, penstock.status().limits) == (None, None)
        answer = service.http.get("/v1/tenants/default/cache")
        assert answer.status_code == 503
        assert "the cache's server does not answer" in answer.json()["error"]["message"]
        assert "nobody.sock" not in answer.text  # where it is, is nothing that a tenant needs to know
        assert "penstock_cache_lookups" not in service.http.get("/metrics").text


def test_what_remote_models_are_asked_at_most_is_told_by_status_and_metrics(service: Service, valkey_url):
    with redis.Redis.from_url(valkey_url) as server:
        limiter = Limiter(server, Line("openai/m", "https://endpoint/v1", "digest", Rates(600)), process="p")
        taken = limiter.take(Asked(1, 10, urgent=True, most_s=1.0))
        limiter.refused(taken, wish_s=60.0)
    with service.penstock() as penstock:
        (told,) = penstock.status().limits

    assert (told.model, told.requests_per_minute, told.tokens_per_minute) == ("openai/m", 600, None)
    assert told.percent < 50
    assert 0 < told.blocked_s <= 60
    text = service.http.get("/metrics").text
    for line in (
        'penstock_provider_calls_total{outcome="granted"} 1.0',
        'penstock_provider_calls_total{outcome="refused"} 1.0',
        "penstock_provider_slowed 1.0",
    ):
        assert line in text
    assert "openai/m" not in text
