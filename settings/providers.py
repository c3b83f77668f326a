"""What the settings say to embedding models, and what the requests of remote ones go through. Part of `wiring`."""

import os
import secrets
import socket
from collections.abc import Callable

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from penstock.pipeline.embedding import (
    DeclaredModel,
    EmbeddingOptions,
    ModelCard,
    endpoint_of,
    is_openai,
    takes_orders,
)
from penstock.pipeline.embedding.breaker import Breaker
from penstock.pipeline.embedding.traffic import Traffic
from penstock.pipeline.errors import NoOrders
from penstock.storage.rates import Limiter, Line, Rates
from penstock.storage.rates.limits import key_digest

from .model import Settings

ANSWER_S = 1.0  # a search waits for it
OPEN_FIRST = 5.0  # of the delay before the second attempt: how long a provider that does not answer is left alone


def options_of(settings: Settings, *, threads: int | None = None) -> EmbeddingOptions:
    """Return what the settings say to every embedder. ``threads``: instead of ``embedding.threads``."""
    chosen = settings.embedding
    return EmbeddingOptions(
        threads=threads or chosen.threads,
        batch_tokens=chosen.batch_tokens,
        timeout_s=chosen.timeout_s,
        openai_base_url=chosen.openai_base_url,
        openai_api_key=chosen.openai_api_key.get_secret_value() if chosen.openai_api_key else None,
        openai_max_texts=chosen.openai_max_texts,
        openai_max_tokens=chosen.openai_max_tokens,
        openai_batches=chosen.openai_batches,
        declared=DeclaredModel(
            dimensions=chosen.openai_dimensions,
            shortest_dimensions=chosen.openai_shortest_dimensions,
            input_limit_tokens=chosen.openai_input_limit_tokens,
            price_per_million_tokens=chosen.openai_usd_per_million_tokens,
            query_prefix=chosen.openai_query_prefix,
            passage_prefix=chosen.openai_passage_prefix,
        ),
        models_dir=chosen.models_dir or settings.data_dir / "models",
    )


def check_economy(settings: Settings, model: str) -> None:
    """Return when the provider of ``model`` takes orders, for half the price.

    Raises:
        NoOrders: it takes none.
    """
    if not (model.startswith("openai/") and takes_orders(options_of(settings))):
        raise NoOrders(
            f"the collection's model is {model}, which is not to be had for less: leave economy out"
            " (embedding.openai_batches says that an endpoint has OpenAI's Batch API)"
        )


def line_of(settings: Settings, card: ModelCard) -> Line:
    """Return whose limits the requests for a remote model are counted against."""
    chosen, options = settings.embedding, options_of(settings)
    published = Rates(card.requests_per_minute, card.tokens_per_minute)
    return Line(
        model=card.name,
        endpoint=endpoint_of(options),
        key_digest=key_digest(chosen.openai_api_key.get_secret_value() if chosen.openai_api_key else ""),
        set=Rates(chosen.openai_requests_per_minute, chosen.openai_tokens_per_minute),
        expected=published if is_openai(options) else Rates(),  # nobody else promised it
    )


def traffic_of(settings: Settings, card: ModelCard, *, redis_url: str, most_calls: Callable[[], int | None]) -> Traffic:
    """Return what the requests for a remote model go through in this process. Connects to nothing before the first."""
    client = redis.Redis.from_url(
        redis_url,
        socket_timeout=ANSWER_S,
        socket_connect_timeout=ANSWER_S,
        retry=Retry(NoBackoff(), 0),
    )
    line, first_s = line_of(settings, card), settings.workers.retry_delay_s
    process = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    return Traffic(
        line.endpoint,
        limits=Limiter(client, line, process=process, first_pause_s=first_s),
        breaker=Breaker(first_s=OPEN_FIRST * first_s, most_calls=most_calls),
    )
