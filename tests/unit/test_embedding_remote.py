"""What the remote provider makes of everything an endpoint can answer."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import pytest

from penstock.pipeline.embedding import DeclaredModel, Embedder, EmbeddingOptions, open_embedder
from penstock.pipeline.embedding.billing import billed
from penstock.pipeline.embedding.paid import PaidVectors
from penstock.pipeline.errors import InputRejected, ProviderMisconfigured, ProviderUnavailable
from penstock.storage.errors import OverBudget

from ..embedding_endpoint import DIMENSIONS, POISON, Endpoint

DECLARED = ("dimensions", "input_limit_tokens", "price_per_million_tokens", "query_prefix", "passage_prefix")


@pytest.fixture
def remote(endpoint: Endpoint) -> Iterator[Callable[..., Embedder]]:
    opened: list[Embedder] = []

    def open_remote(model: str = "openai/local", **options) -> Embedder:
        declared = {name: options.pop(name) for name in DECLARED if name in options}
        options = {"openai_base_url": endpoint.url, "timeout_s": 10.0} | options
        options["declared"] = DeclaredModel(**{"dimensions": DIMENSIONS} | declared)
        opened.append(open_embedder(model, EmbeddingOptions(**options)))
        return opened[-1]

    yield open_remote
    for embedder in opened:
        embedder.close()


def answering(status: int, **more):
    return lambda handler, request: handler.refuse(status, "said the endpoint", **more)


def answering_items(change):
    return lambda handler, request: handler.answer_items(change(handler.endpoint.items(request["input"])))


def test_vectors_come_as_base64_and_leave_with_length_one(endpoint, remote):
    vectors = remote(openai_api_key="sk-secret").embed_passages(["one", "two"])

    expected = endpoint.vector_of("two")
    np.testing.assert_allclose(vectors[1], expected / np.linalg.norm(expected), atol=1e-6)
    assert endpoint.requests == [{"model": "local", "input": ["one", "two"], "encoding_format": "base64"}]
    assert endpoint.headers[0]["authorization"] == "Bearer sk-secret"


def test_an_endpoint_that_answers_numbers_is_understood(endpoint, remote):
    endpoint.as_base64 = False

    assert remote().embed_passages(["one"]).shape == (1, DIMENSIONS)


def test_vectors_in_another_order_are_put_in_order(endpoint, remote):
    straight = remote().embed_passages(["one", "two", "three"])
    endpoint.fault = answering_items(lambda items: items[::-1])

    np.testing.assert_array_equal(remote().embed_passages(["one", "two", "three"]), straight)


def test_requests_stay_within_the_budget_of_tokens(endpoint, remote):
    texts = [f"text number {number} of some words" for number in range(40)]
    embedder = remote(batch_tokens=50)

    vectors = embedder.embed_passages(texts)

    assert [text for request in endpoint.requests for text in request["input"]] == texts
    assert all(sum(embedder.count_tokens(request["input"])) <= 50 for request in endpoint.requests)
    np.testing.assert_allclose(vectors, remote().embed_passages(texts), atol=1e-6)


def test_a_request_holds_as_many_texts_and_tokens_as_it_is_told_and_no_more(endpoint, remote):
    embedder = remote(openai_max_texts=2_048, openai_max_tokens=300_000)
    many = [f"t {number}" for number in range(5_000)]
    long = ["word" + " word" * 59_999] * 11

    assert embedder.embed_passages(many).shape == (5_000, DIMENSIONS)
    assert [len(request["input"]) for request in endpoint.requests] == [2_048, 2_048, 904]
    assert [text for request in endpoint.requests for text in request["input"]] == many
    endpoint.requests.clear()
    embedder.embed_passages(long)
    assert [len(request["input"]) for request in endpoint.requests] == [5, 5, 1]
    assert sum(embedder.count_tokens(endpoint.requests[0]["input"])) == 300_000


def test_openai_itself_is_given_what_it_takes_and_others_less(endpoint, remote, monkeypatch):
    texts = [f"text {number}" for number in range(3_000)]
    remote(batch_tokens=16_384).embed_passages(texts)
    assert max(len(request["input"]) for request in endpoint.requests) == 256

    endpoint.requests.clear()
    endpoint.dimensions = 1536
    monkeypatch.setattr("penstock.pipeline.embedding.embedder.OPENAI_URL", endpoint.url)
    model = "openai/text-embedding-ada-002"
    found = remote(model, openai_base_url=None, openai_api_key="sk-x", dimensions=None).embed_passages(texts)
    assert found.shape == (3_000, 1536)
    assert [len(request["input"]) for request in endpoint.requests] == [2_048, 952]
    assert "dimensions" not in endpoint.requests[0]


@pytest.mark.parametrize(
    ("model", "own"),
    [("text-embedding-3-small", 1536), ("text-embedding-3-large", 3072), ("text-embedding-ada-002", 1536)],
)
def test_openais_models_have_their_own_dimensions_unless_fewer_are_asked_for(endpoint, remote, model, own):
    endpoint.dimensions = own
    assert remote(f"openai/{model}", dimensions=None).embed_query("x").shape == (own,)
    assert endpoint.requests == [{"model": model, "input": ["x"], "encoding_format": "base64"}]


def test_a_text_that_a_known_model_cannot_read_costs_no_request(endpoint, remote):
    with pytest.raises(InputRejected, match="8191") as rejected:
        remote("openai/text-embedding-3-small", dimensions=None).embed_passages(["x", "word" + " word" * 8_191])

    assert rejected.value.index == 1
    assert endpoint.requests == []


def test_declared_prefixes_are_sent_and_the_passages_are_part_of_what_vectors_are_cached_by(endpoint, remote):
    plain, prefixed = remote(), remote(query_prefix="query: ", passage_prefix="passage: ")
    prefixed.embed_passages(["x"])
    prefixed.embed_query("x")

    assert [request["input"] for request in endpoint.requests] == [["passage: x"], ["query: x"]]
    assert plain.card.fingerprint != prefixed.card.fingerprint
    assert remote(query_prefix="query: ").card.fingerprint == plain.card.fingerprint


def test_an_endpoint_that_repeats_the_key_does_not_get_it_into_what_is_told(endpoint, remote):
    endpoint.fault = lambda handler, request: handler.refuse(401, "the key sk-secret-key is not known")

    with pytest.raises(ProviderMisconfigured, match=r"\*\*\*") as refused:
        remote(openai_api_key="sk-secret-key").check()

    assert "sk-secret-key" not in str(refused.value)


def test_shorter_vectors_are_asked_for_only_where_the_model_makes_them(endpoint, remote):
    endpoint.dimensions = 512
    remote("openai/text-embedding-3-small", dimensions=512).embed_query("x")
    remote("openai/other", dimensions=512).embed_query("x")

    assert [request.get("dimensions") for request in endpoint.requests] == [512, None]


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "30", "retry_after_ms": "1500"}, 1.5),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"Retry_After": "-3"}, None),
        ({}, None),
    ],
)
def test_too_many_requests_is_unavailable_for_as_long_as_the_endpoint_says(endpoint, remote, headers, expected_s):
    endpoint.fault = answering(429, **headers)

    with pytest.raises(ProviderUnavailable) as unavailable:
        remote().embed_passages(["one"])

    assert unavailable.value.retry_after_s == expected_s
    assert len(endpoint.requests) == 1, "it does not retry by itself"


@pytest.mark.parametrize("status", [500, 502, 503, 529, 408, 409])
def test_a_failing_endpoint_is_unavailable(endpoint, remote, status):
    endpoint.fault = answering(status)

    with pytest.raises(ProviderUnavailable, match=f"{status}.*said the endpoint"):
        remote().embed_passages(["one"])
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("fault", "setting"),
    [
        (answering(401), "embedding.openai_api_key"),
        (answering(403), "embedding.openai_api_key"),
        (answering(429, code="insufficient_quota"), "embedding.openai_api_key"),
        (answering(404), "embedding.model"),
    ],
)
def test_what_only_a_person_can_mend_names_the_setting(endpoint, remote, fault, setting):
    endpoint.fault = fault

    with pytest.raises(ProviderMisconfigured, match="said the endpoint") as misconfigured:
        remote().embed_passages(["one"])

    assert misconfigured.value.setting == setting


@pytest.mark.parametrize("place", [0, 1, 6, 12])
def test_the_one_refused_text_is_found(endpoint, remote, place):
    texts = [f"fine {number}" for number in range(13)]
    texts[place] = POISON

    with pytest.raises(InputRejected, match="not allowed") as rejected:
        remote().embed_passages(texts)

    assert rejected.value.index == place


def test_the_place_of_a_refused_text_counts_over_all_requests(endpoint, remote):
    with pytest.raises(InputRejected) as rejected:
        remote(batch_tokens=8).embed_passages(["one two three", "four five six", POISON, "seven"])

    assert rejected.value.index == 2


def answered(endpoint: Endpoint) -> list[str]:
    """Return the texts of all requests that were answered with vectors, and so had to be paid for."""
    return [text for request in endpoint.requests if POISON not in request["input"] for text in request["input"]]


def test_texts_beside_refused_ones_are_paid_for_once_however_many_are_refused(endpoint, remote):
    embedder, texts = remote(), [f"fine {number}" for number in range(60)]
    texts[7] = texts[21] = texts[50] = POISON
    expected = remote().embed_passages([text for text in texts if text != POISON])
    endpoint.requests.clear()

    while True:  # as the embed role does
        try:
            vectors = embedder.embed_passages(texts)
            break
        except InputRejected as rejected:
            texts.pop(rejected.index)

    paid = [text for text in answered(endpoint) if text.startswith("fine")]
    assert sorted(paid) == sorted(texts)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_what_was_answered_before_an_outage_is_not_paid_for_again(endpoint, remote):
    texts, left = [f"text number {number} of some words" for number in range(40)], [3]

    def fault(handler, request):
        if left[0] == 0:
            handler.refuse(500, "out")
        else:
            left[0] -= 1
            handler.answer_items(endpoint.items(request["input"]))

    embedder = remote(batch_tokens=50)
    endpoint.fault = fault
    with pytest.raises(ProviderUnavailable):
        embedder.embed_passages(texts)
    endpoint.requests.pop()  # the one that was not answered
    endpoint.fault = None
    vectors = embedder.embed_passages(texts)

    assert sorted(answered(endpoint)) == sorted(texts)
    np.testing.assert_allclose(vectors, remote().embed_passages(texts), atol=1e-6)


def test_no_more_than_some_vectors_are_kept_and_each_is_given_out_once():
    paid = PaidVectors(2)
    paid.keep("acme", {text: np.full(3, number, np.float32) for number, text in enumerate("abc")})

    assert {place: vector[0] for place, vector in paid.take("acme", ["c", "a", "b"]).items()} == {0: 2.0, 2: 1.0}
    assert paid.take("acme", ["c", "b"]) == {}


def test_what_one_account_paid_for_another_pays_for_itself(endpoint, remote):
    """Else its bill would tell that somebody else embeds the same text."""
    embedder, theirs, ours = remote(), Account(account="globex"), Account()
    with pytest.raises(InputRejected):
        billed(embedder, theirs).embed_passages(["a common text", POISON])
    billed(embedder, ours).embed_passages(["a common text"])
    billed(embedder, theirs).embed_passages(["a common text"])

    assert len(ours.calls) == 1
    assert answered(endpoint).count("a common text") == 2


def test_a_request_refused_only_for_its_size_is_made_in_halves(endpoint, remote):
    def fault(handler, request):
        if len(request["input"]) > 3:
            handler.refuse(413, "too large")
        else:
            handler.answer_items(endpoint.items(request["input"]))

    texts = [f"text {number}" for number in range(8)]
    expected = remote().embed_passages(texts)
    endpoint.fault = fault

    np.testing.assert_allclose(remote().embed_passages(texts), expected, atol=1e-6)


def test_an_endpoint_that_refuses_everything_is_misconfigured_and_no_text_is_blamed(endpoint, remote):
    endpoint.fault = answering(400)

    with pytest.raises(ProviderMisconfigured, match="every request"):
        remote().embed_passages(["one", "two"])


def test_another_number_of_dimensions_names_the_setting_and_the_number(endpoint, remote):
    with pytest.raises(ProviderMisconfigured, match=f"set embedding.openai_dimensions to {DIMENSIONS}") as error:
        remote(dimensions=512).check()

    assert error.value.setting == "embedding.openai_dimensions"


@pytest.mark.parametrize(
    "fault",
    [
        answering_items(lambda items: items[:-1]),
        answering_items(lambda items: [*items, items[0]]),
        answering_items(lambda items: [{**item, "index": 0} for item in items]),
        answering_items(lambda items: [{**item, "embedding": "%%%"} for item in items]),
        answering_items(lambda items: [{**item, "embedding": "AAAAAA=="[:6]} for item in items]),
        answering_items(lambda items: [{**item, "embedding": [float("nan")] * DIMENSIONS} for item in items]),
        answering_items(lambda items: [{**item, "embedding": None} for item in items]),
        answering_items(lambda items: [{**item, "embedding": ["x"]} for item in items]),
        answering_items(lambda items: [{"embedding": item["embedding"]} for item in items]),
        answering_items(lambda items: []),
        lambda handler, request: handler.answer(200, b"{}"),
        lambda handler, request: handler.answer(200, b"[1, 2]"),
        lambda handler, request: handler.answer(200, b""),
        lambda handler, request: handler.answer(200, b'{"data": [{"index": 0, "emb'),
        lambda handler, request: handler.answer(200, b"<html>proxy</html>"),
        lambda handler, request: handler.answer(200, b'{"data":', claimed_bytes=10_000),
        lambda handler, request: handler.hang_up(),
    ],
    ids=[
        "one vector too few", "one too many", "the same index twice", "not base64", "half a float", "nan", "null",
        "words for numbers", "no index", "no vectors", "empty object", "a list", "empty body", "half an object",
        "not json", "cut off", "no answer",
    ],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_unavailable(endpoint, remote, fault):
    endpoint.fault = fault

    with pytest.raises(ProviderUnavailable):
        remote().embed_passages(["one", "two"])


def test_an_endpoint_that_keeps_silent_is_unavailable_in_time(endpoint, remote):
    endpoint.fault = lambda handler, request: endpoint.released.wait(20)
    started = time.monotonic()

    with pytest.raises(ProviderUnavailable, match="in time"):
        remote(timeout_s=0.3).embed_passages(["one"])

    assert time.monotonic() - started < 10


def test_an_endpoint_that_answers_a_byte_now_and_then_is_unavailable_in_time(endpoint, remote):
    endpoint.fault = lambda handler, request: handler.drip(b" " * 100_000, every_s=0.05)
    started = time.monotonic()

    with pytest.raises(ProviderUnavailable, match="in time"):
        remote(timeout_s=0.4).embed_passages(["one"])

    assert time.monotonic() - started < 10


def test_an_answer_that_is_larger_than_it_can_have_to_be_is_not_read_to_its_end(endpoint, remote):
    def fault(handler, request):
        with suppress(OSError):  # the client has had enough
            handler.answer(200, b" " * (64 << 20))

    endpoint.fault = fault

    with pytest.raises(ProviderUnavailable, match="more than"):
        remote().embed_passages(["one"])


def test_an_endpoint_that_is_not_there_is_unavailable(remote):
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        remote(openai_base_url="http://127.0.0.1:1/v1").check()


def test_openai_itself_needs_a_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of somebody else")

    with pytest.raises(ProviderMisconfigured, match=r"embedding\.openai_api_key"):
        open_embedder("openai/text-embedding-3-small", EmbeddingOptions())


def test_the_environment_of_other_programs_changes_nothing(endpoint, remote, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of somebody else")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")

    remote().check()

    assert "somebody" not in json.dumps(endpoint.headers)


def test_options_do_not_show_the_key():
    assert "sk-secret" not in repr(EmbeddingOptions(openai_api_key="sk-secret"))


class Account:
    """Somebody who pays for everything, and takes note. ``limit``: the tokens that there is money for."""

    def __init__(self, limit: int = 10**9, *, account: str = "acme") -> None:
        self.limit, self.account = limit, account
        self.reserved: list[int] = []
        self.calls: list[tuple[int, bool]] = []

    def reserve(self, tokens: int) -> None:
        if tokens > self.limit:
            raise OverBudget("nothing is left", budget="job_budget")
        self.reserved.append(tokens)

    def paid(self, tokens: int, *, answered: bool = True) -> None:
        self.calls.append((tokens, answered))


def test_every_call_is_paid_for_as_the_endpoint_counts_and_reserved_before(endpoint, remote):
    account, texts = Account(), [f"text number {number} of some words" for number in range(40)]
    billed(remote(batch_tokens=50, passage_prefix="search: "), account).embed_passages(texts)

    assert len(account.calls) == len(endpoint.requests) > 1
    assert sum(tokens for tokens, _ in account.calls) == endpoint.billed_tokens
    assert account.reserved == [endpoint.billed_tokens]


def test_what_is_refused_is_not_paid_for_and_what_was_answered_beside_it_is(endpoint, remote):
    account = Account()
    with pytest.raises(InputRejected):
        billed(remote(), account).embed_passages(["one", "two", POISON, "four"])
    assert sum(tokens for tokens, _ in account.calls) == endpoint.billed_tokens
    endpoint.fault = answering(429)
    account.calls.clear()
    with pytest.raises(ProviderUnavailable):
        billed(remote(), account).embed_passages(["one"])
    assert account.calls == []


@pytest.mark.parametrize(
    "fault",
    [
        lambda handler, request: handler.hang_up(),
        lambda handler, request: handler.answer(200, b'{"data": [', claimed_bytes=1_000),
        answering_items(lambda items: items[:-1]),
    ],
    ids=["hangs up", "cut off", "wrong count"],
)
def test_a_call_that_brought_nothing_may_have_been_paid_for(endpoint, remote, fault):
    account, endpoint.fault = Account(), fault
    with pytest.raises(ProviderUnavailable):
        billed(remote(), account).embed_passages(["one", "two"])
    assert account.calls == [(2, False)]


def test_what_never_arrived_is_not_paid_for(remote):
    account = Account()
    with pytest.raises(ProviderUnavailable):
        billed(remote(openai_base_url="http://127.0.0.1:9/v1"), account).embed_passages(["one"])
    assert account.calls == []


def test_without_money_nothing_is_asked_and_what_was_paid_for_before_is_kept(endpoint, remote):
    embedder = remote()
    with pytest.raises(InputRejected):
        billed(embedder, Account()).embed_passages(["one", "two", POISON])
    endpoint.requests.clear()
    with pytest.raises(OverBudget):
        billed(embedder, Account(0)).embed_passages(["one", "two", "three"])
    assert endpoint.requests == []
    account = Account()
    billed(embedder, account).embed_passages(["one", "two", "three"])
    assert account.reserved == [1], "the two others were paid for before"


def test_a_model_that_runs_here_is_counted(remote):
    account, hashed = Account(), open_embedder("hash-256", EmbeddingOptions())
    billed(hashed, account).embed_query("four words of text")
    assert account.calls == [(hashed.count_tokens(["four words of text"])[0], True)]
