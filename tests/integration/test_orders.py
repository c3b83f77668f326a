"""Economy: vectors ordered by a provider's Batch API, for half the price, through the roles to the index."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from penstock.pipeline.chunking import ResolvedChunking, count_tokens
from penstock.pipeline.estimating import Cutting, cut, estimate
from penstock.pipeline.parsing import ParseLimits
from penstock.storage import ledger
from penstock.storage.backups.needed import read_names
from penstock.storage.backups.scope import Scope
from penstock.storage.catalog.jobs import cancel_job
from penstock.storage.catalog.tables import batches, orders
from penstock.storage.catalog.tenants import change_tenant
from penstock.storage.errors import Conflict
from penstock.storage.intake.documents import SubmittedDocument
from penstock.storage.ledger.aside import staged_for_orders
from penstock.workers import orders as orders_module
from penstock.workers.liveness import Liveness
from penstock.workers.orders import OrderDesk

from ..economy_line import TEXTS, EconomyLine, economy_line
from ..embedding_endpoint import DIMENSIONS, POISON
from ..orders_endpoint import OrdersEndpoint
from ..reembedded_line import reembedded_line
from ..role_line import ACME

# The chunk role sets alarms, which the other method of timing tests out would lose.
pytestmark = pytest.mark.timeout(120, method="thread")


@pytest.fixture
def endpoint() -> Iterator[OrdersEndpoint]:
    server = OrdersEndpoint()
    yield server
    server.close()


@pytest.fixture
def line(tmp_path: Path, endpoint: OrdersEndpoint) -> Iterator[EconomyLine]:
    with economy_line(tmp_path, endpoint) as made:
        yield made


HALF = 0.5 / 1e6  # what an ordered token costs


def all_found(line: EconomyLine, texts: dict[str, str]) -> bool:
    return {source: line.nearest(text) for source, text in texts.items()} == {source: source for source in texts}


def test_what_is_for_economy_is_ordered_and_nothing_of_it_is_embedded_at_once(line):
    accepted = line.order(**TEXTS)
    waiting = line.job(accepted)
    assert set(line.states().values()) == {"embedding"}
    assert not waiting.held_up.paused
    assert waiting.held_up.ordered
    assert "ordered as batch_1" in waiting.held_up.reason

    line.endpoint.finish()
    line.tick()
    line.drain()
    assert line.states() == dict.fromkeys(TEXTS, "indexed")
    assert all_found(line, TEXTS)
    assert line.embedded_at_once() == []
    assert Counter(line.endpoint.ordered()) == Counter(TEXTS.values())
    (one,) = line.endpoint.placed.values()
    assert one["completion_window"] == "24h"
    assert one["metadata"] == {"penstock_order": line.orders()[0].id}
    assert line.endpoint.files == {}, "no text of a tenant is left at the provider"
    assert line.job(accepted).held_up is None


def test_what_is_ordered_costs_half_when_it_comes_and_once(line):
    accepted = line.order(**TEXTS)
    assert line.costs() == (0, 0.0)

    line.endpoint.finish()  # it counts a token for each text
    line.tick()
    assert line.costs() == (6, pytest.approx(6 * 0.5 / 1e6))
    line.drain()
    assert line.costs() == (6, pytest.approx(6 * 0.5 / 1e6))
    assert line.job(accepted).cost_usd == pytest.approx(6 * 0.5 / 1e6)


def test_vectors_that_are_cut_here_are_ordered_too_and_cut_as_they_come(tmp_path, endpoint):
    endpoint.dimensions = 2 * DIMENSIONS
    declared = {"openai_dimensions": 2 * DIMENSIONS, "openai_shortest_dimensions": DIMENSIONS}
    with economy_line(tmp_path, endpoint, **declared) as line:
        line.order(**TEXTS)
        endpoint.finish()
        line.tick()
        line.drain()

        assert all_found(line, TEXTS)
        assert line.embedded_at_once() == []
        assert line.costs() == (6, pytest.approx(6 * 0.5 / 1e6))


def test_nothing_is_ordered_for_which_there_is_no_money(line):
    change_tenant(line.catalog, ACME, monthly_budget_usd=1e-9)
    accepted = line.order(**TEXTS)

    assert line.orders() == []
    assert line.job(accepted).held_up.paused


def test_orders_under_way_do_not_overspend_a_month_together_and_what_is_left_goes_on_after_a_delivery(line):
    price = count_tokens(TEXTS["d0"]) * HALF
    change_tenant(line.catalog, ACME, monthly_budget_usd=1.6 * price)
    line.order(d0=TEXTS["d0"])
    assert line.reserved_usd() == pytest.approx(price)
    second = line.order(d1=TEXTS["d1"])
    assert len(line.orders()) == 1
    assert "set aside for calls and orders under way" in line.job(second).held_up.reason
    assert line.costs()[1] + line.reserved_usd() <= 1.6 * price

    line.endpoint.finish()  # it counts one token
    line.tick()
    line.settle()
    line.tick()
    line.endpoint.finish()
    line.tick()
    line.drain()
    assert line.states() == {"d0": "indexed", "d1": "indexed"}
    assert line.embedded_at_once() == []
    assert (line.costs(), line.reserved_usd()) == ((2, pytest.approx(2 * HALF)), 0.0)


def test_an_order_needs_half_of_what_its_texts_cost_at_once(line):
    price = sum(map(count_tokens, TEXTS.values())) * HALF
    accepted = line.order(budget_usd=1.01 * price, **TEXTS)
    assert [order.state for order in line.orders()] == ["placed"]
    assert line.job(accepted).held_up.ordered


def test_what_was_refused_is_given_back_and_what_is_then_embedded_at_once_costs_the_full_price(line):
    line.order(**TEXTS)
    line.endpoint.fail("batch_1", "invalid_model", "The model cannot be used in batches.")
    line.tick()
    assert line.reserved_usd() == 0.0
    line.drain()
    assert line.costs()[1] == pytest.approx(line.endpoint.billed_tokens / 1e6)
    assert line.reserved_usd() == 0.0


def test_a_text_of_several_batches_is_ordered_once_and_costs_once(line):
    same = {"again": TEXTS["d0"], "d1": TEXTS["d1"]}
    for texts in ({"d0": TEXTS["d0"]}, same, {"twice": TEXTS["d0"]}):
        accepted = line.submit(**texts)
        line.settle()
    line.tick()
    line.endpoint.finish()
    line.tick()
    line.drain()

    assert Counter(line.endpoint.ordered()) == Counter([TEXTS["d0"], TEXTS["d1"]])
    assert line.embedded_at_once() == []
    assert line.states() == dict.fromkeys(("d0", "again", "d1", "twice"), "indexed")
    assert line.nearest(TEXTS["d1"]) == "d1"
    assert line.nearest(TEXTS["d0"]) in {"d0", "again", "twice"}
    assert (line.costs(), line.reserved_usd()) == ((2, pytest.approx(2 * HALF)), 0.0)
    assert line.job(accepted).cost_usd == 0.0, "who asked first has paid"


def test_a_text_whose_buyer_is_cancelled_is_embedded_for_the_others(line):
    first = line.submit(d0=TEXTS["d0"])
    line.settle()
    line.order(again=TEXTS["d0"], d1=TEXTS["d1"])
    cancel_job(line.catalog, tenant=ACME, job_id=first.job_id, now=time.time())
    line.endpoint.finish()
    line.tick()
    line.drain()

    assert line.embedded_at_once() == [TEXTS["d0"]]
    assert all_found(line, {"again": TEXTS["d0"], "d1": TEXTS["d1"]})
    assert line.reserved_usd() == 0.0


def test_what_an_order_costs_is_what_was_estimated(line):
    line.endpoint.size_of = count_tokens
    texts = {f"{name}{number}": text for name in "ab" for number, text in TEXTS.items()}
    cutting = Cutting(ResolvedChunking.model_validate(line.collection.generation.chunking), ParseLimits(), None)
    read = {one: cut(text.encode(), filename="a.txt", media_type=None, cutting=cutting) for one, text in texts.items()}
    estimated = estimate(read.items(), kept=(), cached=lambda _: ())
    for name in "ab":
        line.submit(**{one: text for one, text in texts.items() if one.startswith(name)})
        line.settle()
    line.tick()
    line.endpoint.finish()
    line.tick()
    line.drain()

    assert estimated.repeated == len(TEXTS)
    assert line.costs()[1] == pytest.approx(estimated.tokens * HALF, rel=0.05)


def test_other_priorities_go_on_at_once_beside_an_order(line):
    line.order(**TEXTS)
    other = line.submit(priority=1, late="A text that is wanted now.")
    line.settle()

    assert line.job(other).state == "done"
    assert line.embedded_at_once() == ["A text that is wanted now."]
    assert line.states()["d0"] == "embedding"


def test_what_waits_for_an_order_is_gathered_when_it_has_waited_and_not_before(line):
    line.submit(**TEXTS)
    line.settle()
    line.desk.tick(wait_s=60.0)
    assert line.orders() == []

    line.desk.tick(wait_s=0.0)
    assert [order.state for order in line.orders()] == ["placed"]


def test_an_order_is_full_at_its_most_chunks_whatever_has_waited(line):
    line.submit(**TEXTS)
    line.settle()
    with line.catalog.read() as connection:
        chunks = list(connection.scalars(sa.select(batches.c.chunk_count).where(batches.c.aside_since.is_not(None))))
    made = ledger.gather(line.catalog, now=time.time(), wait_s=0.0, most_chunks=max(chunks))

    assert len(made) >= len(chunks) / 2
    assert all(order.chunk_count <= max(chunks) for order in line.orders())


def test_a_file_that_is_full_leaves_the_rest_to_the_next_order(line, monkeypatch):
    for source, text in TEXTS.items():
        line.submit(**{source: text})
        line.settle()
    monkeypatch.setattr(orders_module, "MOST_BYTES", 300)
    for _ in range(12):
        line.tick()
    line.endpoint.finish()
    line.tick()
    line.drain()

    assert len(line.endpoint.placed) > 1
    assert Counter(line.endpoint.ordered()) == Counter(TEXTS.values())
    assert line.embedded_at_once() == []


def test_answers_in_any_order_twice_or_of_nothing_that_was_asked_are_each_texts_own(line):
    for source, text in TEXTS.items():
        line.submit(**{source: text})
        line.settle()
    line.tick()
    stranger = {"id": "r", "custom_id": "batch_of_somebody.0", "response": {"status_code": 200, "body": {"data": []}}}
    nameless = {"id": "r", "response": {"status_code": 200, "body": {"data": []}}}
    line.endpoint.change = lambda lines: [stranger, *lines[::-1], nameless, *lines]
    line.endpoint.finish()
    line.tick()
    line.drain()

    assert all_found(line, TEXTS)
    assert line.embedded_at_once() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[1:],
        lambda lines: [{name: value for name, value in lines[0].items() if name != "custom_id"}, *lines[1:]],
        lambda lines: [{**lines[0], "response": {"status_code": 200, "body": {"data": []}}}, *lines[1:]],
        lambda lines: [{**lines[0], "response": "?"}, *lines[1:]],
        lambda lines: [
            {**lines[0], "response": {"status_code": 200, "body": {"data": [{"index": 0, "embedding": [0.5] * 9}]}}},
            *lines[1:],
        ],
    ],
    ids=["missing", "without its name", "no vectors", "no answer", "other dimensions"],
)
def test_what_an_order_did_not_bring_is_embedded_at_once_and_nothing_else_is(line, change):
    for source, text in TEXTS.items():
        line.submit(**{source: text})
        line.settle()
    line.tick()
    line.endpoint.change = change
    line.endpoint.finish()
    line.tick()
    line.drain()

    assert line.states() == dict.fromkeys(TEXTS, "indexed")
    assert all_found(line, TEXTS)
    assert len(line.embedded_at_once()) == 1


def test_a_text_that_the_provider_refuses_is_a_dead_document_with_the_reason_and_the_others_go_on(line):
    accepted = line.order(**TEXTS, bad=POISON)
    line.endpoint.finish()
    line.tick()
    line.drain()

    assert line.states() == dict.fromkeys(TEXTS, "indexed") | {"bad": "failed"}
    assert "this input is not allowed" in line.documents()["bad"].error
    assert all_found(line, TEXTS)
    assert line.job(accepted).state == "done"


def test_of_an_order_whose_time_was_over_the_part_that_came_is_used_and_the_rest_is_ordered_once_more(line):
    for source, text in TEXTS.items():
        line.submit(**{source: text})
        line.settle()
    line.tick()
    line.endpoint.finish(status="expired", part=0.5)
    line.tick()
    line.settle()
    assert Counter(line.states().values()) == {"indexed": 3, "embedding": 3}
    line.tick()
    line.endpoint.finish()
    line.tick()
    line.drain()

    assert line.states() == dict.fromkeys(TEXTS, "indexed")
    assert all_found(line, TEXTS)
    assert line.embedded_at_once() == []
    assert len(line.endpoint.placed) == 2
    assert len(line.endpoint.ordered()) == 9, "three texts were not made the first time"


def test_what_was_not_made_in_time_twice_is_embedded_at_once(line):
    line.order(**TEXTS)
    for _ in range(2):
        line.endpoint.finish(status="expired", part=0.0)
        line.tick()
        line.settle()
        line.tick()
    line.drain()

    assert line.states() == dict.fromkeys(TEXTS, "indexed")
    assert Counter(line.embedded_at_once()) == Counter(TEXTS.values())
    assert len(line.endpoint.placed) == 2


def test_an_order_that_the_provider_refuses_as_a_whole_is_embedded_at_once_and_says_why(line):
    line.order(**TEXTS)
    line.endpoint.fail("batch_1", "invalid_model", "The model cannot be used in batches.")
    line.tick()
    line.drain()

    assert line.states() == dict.fromkeys(TEXTS, "indexed")
    assert Counter(line.embedded_at_once()) == Counter(TEXTS.values())
    assert "cannot be used in batches" in line.orders()[0].told
    assert line.endpoint.files == {}


def test_an_order_too_large_for_what_may_wait_at_the_provider_is_made_in_halves(line):
    for source, text in TEXTS.items():
        line.submit(**{source: text})
        line.settle()
    line.endpoint.most_characters = 700  # three of six
    line.tick()
    for _ in range(12):
        line.tick()
        line.endpoint.finish()
        line.settle()
    line.drain()

    assert line.states() == dict.fromkeys(TEXTS, "indexed")
    assert line.embedded_at_once() == []
    assert Counter(line.endpoint.ordered()) == Counter(TEXTS.values())


def test_an_order_that_does_not_fit_beside_another_waits_for_that_one(line):
    line.endpoint.most_characters = 250
    line.order(first=TEXTS["d0"])
    second = line.order(second=TEXTS["d1"])
    line.tick()
    assert "Enqueued token limit" in line.job(second).held_up.reason
    assert [order.state for order in line.orders()] == ["placed", "gathered"]

    line.endpoint.finish()
    for _ in range(3):
        line.tick()
    line.endpoint.finish()
    line.tick()
    line.drain()
    assert line.states() == {"first": "indexed", "second": "indexed"}
    assert line.embedded_at_once() == []


def test_a_job_that_is_cancelled_takes_its_order_back(line):
    accepted = line.order(**TEXTS)
    cancel_job(line.catalog, tenant=ACME, job_id=accepted.job_id, now=time.time())
    line.tick()

    assert [one["status"] for one in line.endpoint.placed.values()] == ["cancelling"]
    assert [order.state for order in line.orders()] == ["over"]
    line.settle()
    assert line.embedded_at_once() == []


def test_a_job_that_is_cancelled_before_its_order_is_placed_costs_nothing(line):
    accepted = line.submit(**TEXTS)
    line.settle()
    cancel_job(line.catalog, tenant=ACME, job_id=accepted.job_id, now=time.time())
    line.tick()

    assert line.endpoint.placed == {}


@pytest.mark.parametrize("place", ["upload", "place"])
def test_a_refused_key_pauses_the_job_with_the_reason_until_it_is_mended(line, place):
    refused = [True]

    def refuse(handler) -> bool:
        if refused[0]:
            handler.refuse(401, "no such key")
        return refused[0]

    line.endpoint.before_create = refuse
    if place == "upload":
        line.endpoint.before_upload = refuse
    accepted = line.order(**TEXTS)
    job = line.job(accepted)
    assert job.held_up.paused
    assert "embedding.openai_api_key" in job.held_up.reason

    refused[0] = False
    for _ in range(3):
        line.tick()
    line.endpoint.finish()
    line.tick()
    line.drain()
    assert line.states() == dict.fromkeys(TEXTS, "indexed")
    assert Counter(line.endpoint.ordered()) == Counter(TEXTS.values())


def test_an_order_whose_answer_was_lost_is_found_again_and_not_placed_twice(line):
    def answer_nothing(handler) -> bool:
        line.endpoint.before_create = lambda _: False
        (name,) = line.endpoint.files
        asked = {"endpoint": "/v1/embeddings", "completion_window": "24h", "input_file_id": name}
        made = line.endpoint.create({**asked, "metadata": {"penstock_order": line.orders()[0].id}})
        made["lines"] = line.endpoint.lines(name)
        handler.hang_up()
        return True

    line.endpoint.before_create = answer_nothing
    line.order(**TEXTS)
    assert [order.state for order in line.orders()] == ["placing"]
    line.tick()

    assert [order.provider_id for order in line.orders()] == ["batch_1"]
    assert len(line.endpoint.placed) == 1


def test_nobody_looks_for_an_order_before_it_is_in_the_lists_of_the_provider(line):
    line.desk = OrderDesk(line.components, liveness=Liveness(), settle_s=600.0)
    line.endpoint.before_create = lambda handler: handler.hang_up() or True
    line.order(**TEXTS)
    line.endpoint.before_create = lambda _: False
    line.tick()

    assert [order.state for order in line.orders()] == ["placing"]
    assert line.endpoint.placed == {}


def test_who_lost_an_order_while_placing_it_takes_back_what_it_placed(line, monkeypatch):
    line.submit(**TEXTS)
    line.settle()

    def lose(*_: Any, **__: Any) -> None:
        raise Conflict("somebody else has it")

    with monkeypatch.context() as patch:
        patch.setattr(orders_module.ledger, "record_placed", lose)
        line.tick()

    assert [one["status"] for one in line.endpoint.placed.values()] == ["cancelling"]


def test_two_desks_at_once_place_an_order_once(line):
    line.submit(**TEXTS)
    line.settle()
    other = OrderDesk(line.components, liveness=Liveness(), settle_s=0.0)
    ledger.gather(line.catalog, now=time.time(), wait_s=0.0)
    mine = ledger.claim_order(line.catalog, owner="me", lease_s=60.0, now=time.time())
    other.tick(wait_s=0.0)

    assert line.endpoint.placed == {}
    assert mine is not None
    with pytest.raises(Conflict):
        ledger.renew_order(line.catalog, replace(mine, owner="another"), lease_s=1.0, now=time.time())


def test_a_batch_whose_order_nobody_ends_comes_back_and_is_put_aside_again(line):
    line.order(**TEXTS)
    with line.catalog.write("test") as connection:
        connection.execute(sa.update(batches).values(next_attempt_at=0.0))
    line.settle()
    assert line.embedded_at_once() == []

    line.endpoint.finish()
    line.tick()
    line.drain()
    assert all_found(line, TEXTS)
    assert line.embedded_at_once() == []
    assert Counter(line.endpoint.ordered()) == Counter(TEXTS.values())


def test_a_tenant_that_is_paused_orders_nothing(line):
    line.submit(**TEXTS)
    line.settle()
    ledger.pause(line.catalog, tenant=ACME, now=time.time())
    line.tick()
    assert line.orders() == []
    ledger.resume(line.catalog, tenant=ACME)
    line.tick()
    assert len(line.orders()) == 1


def test_what_is_delivered_but_damaged_is_embedded_at_once(line):
    line.order(**TEXTS)
    line.endpoint.finish()
    line.tick()
    for info in line.components.objects.list("tenants/acme/staging/"):
        if "/ordered-" in info.name:
            line.components.objects.delete(info.name)
    line.drain()

    assert line.states() == dict.fromkeys(TEXTS, "indexed")
    assert Counter(line.embedded_at_once()) == Counter(TEXTS.values())


def test_of_an_order_no_more_is_held_than_a_bound_while_it_is_unpacked(line, monkeypatch):
    monkeypatch.setattr("penstock.workers.parcels.MOST_TEXTS", 1)
    monkeypatch.setattr("penstock.workers.unpacking.HELD_BYTES", 4 * DIMENSIONS)
    line.order(**TEXTS)
    line.endpoint.finish()
    line.tick()
    staged = [info for info in line.components.objects.list("tenants/acme/staging/") if "/ordered-" in info.name]
    line.drain()

    assert len(staged) == 3, "of one vector and the next"
    assert all_found(line, TEXTS)
    assert line.embedded_at_once() == []
    assert line.costs()[0] == len(TEXTS)


@pytest.mark.parametrize("placed", [False, True])
def test_a_batch_whose_chunks_are_lost_holds_up_no_other(line, placed):
    for source, text in (("lost", TEXTS["d0"]), ("good", TEXTS["d1"])):
        line.submit(**{source: text})
        line.settle()
    with line.catalog.read() as connection:
        aside = sa.select(batches.c.input).where(batches.c.aside_since.is_not(None)).order_by(batches.c.id)
        chunks = connection.scalars(aside).first()
    if placed:
        line.tick()
    line.components.objects.delete(chunks)
    for _ in range(3):
        line.tick()
        line.endpoint.finish()
    line.tick()
    line.drain()

    assert line.states() == {"lost": "failed", "good": "indexed"}
    assert line.nearest(TEXTS["d1"]) == "good"
    assert line.embedded_at_once() == []
    assert [order.state for order in line.orders()] == ["over"] * len(line.orders())


def test_a_backup_holds_what_an_order_brought_and_what_one_is_made_of(line):
    """Else a restored installation would pay for it again, and could not read the answers of an order under way."""
    line.order(**TEXTS)
    line.endpoint.finish()
    line.tick()
    staged = {info.name for info in line.components.objects.list("tenants/acme/staging/") if "/ordered-" in info.name}
    with line.catalog.read() as connection:
        needed = read_names(connection, Scope())

    assert staged
    assert staged <= needed.objects.keys()
    assert staged_for_orders({"wanted": {"rows": [0], "chunks": "of a re-embedding"}}) == ["of a re-embedding"]


def test_a_collection_is_embedded_again_for_half_the_price(tmp_path, endpoint):
    embedding = {
        "model": "hash-256",
        "openai_base_url": endpoint.url,
        "openai_dimensions": DIMENSIONS,
        "openai_api_key": "sk-of-the-test",
        "openai_batches": True,
        "openai_usd_per_million_tokens": 1.0,
        "threads": 1,
    }
    with reembedded_line(tmp_path, embedding=embedding) as line:
        line.accept([SubmittedDocument(source, f"{source}.txt", text.encode()) for source, text in TEXTS.items()])
        line.drain()
        line.begin("openai/local-256", economy=True, forced=True)
        desk = OrderDesk(line.components, liveness=Liveness(), settle_s=0.0)
        while (info := line.info()).state != "switched":
            for _ in range(3):
                line.step()
            with line.catalog.write("test") as connection:
                connection.execute(sa.update(orders).values(next_look_at=0.0))
            desk.tick(wait_s=0.0)
            endpoint.finish()
        texts = [hit.text for hit in line.found()]

    assert Counter(endpoint.ordered()) == Counter(texts)
    asked_at_once = [len(request["input"]) for request in endpoint.requests]
    assert set(asked_at_once) == {1}, "the questions of the check, and no slice"
    assert (info.embedded_tokens, info.cost_usd) == (len(texts), pytest.approx(len(texts) * 0.5 / 1e6))
