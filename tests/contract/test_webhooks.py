"""Webhooks: whoever asked is told that a job ended, signed, whatever dies; and nobody else is reached."""

import asyncio
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sqlalchemy as sa

from penstock.client import verify_webhook
from penstock.settings.model import Webhooks
from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.jobs import cancel_job, get_job
from penstock.storage.catalog.tables import deliveries
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.catalog.webhook_defaults import WebhookDefaults, read_defaults, set_default
from penstock.storage.catalog.webhook_secrets import FORMER_S, rotate_secret, signing_secrets
from penstock.storage.errors import Conflict, NotFound, Unavailable
from penstock.storage.figures import Figures
from penstock.storage.ids import TenantId
from penstock.storage.intake.documents import Terms, accept
from penstock.storage.ledger.deliveries import (
    KEPT_S,
    DeliveryInfo,
    claim_deliveries,
    end_delivery,
    forget_deliveries,
    list_deliveries,
    retry_delivery,
    send_again,
)
from penstock.workers import webhooks
from penstock.workers.posting import post
from penstock.workers.webhooks import WebhookSender

from ..ledger_line import TENANT, Line, document, new_line

URL = "https://example.com/hook"
OPTIONS: dict[str, Any] = {"owner": "sender", "lease_s": 30.0, "limit": 10, "per_tenant": 4}


@pytest.fixture
def line(catalog) -> Line:
    made = new_line(catalog)
    rotate_secret(catalog, TENANT, now=1.0)
    return made


def submit(line: Line, *sources: str, url: str | None = URL, job_id: Any = None) -> Any:
    place = {"tenant": line.tenant, "collection_id": line.collection.id}
    submitted = [document(source, f"text of {source}") for source in sources]
    generation = line.collection.generation.id
    return accept(
        line.catalog,
        line.objects,
        **place,
        generation_id=generation,
        documents=submitted,
        now=line.now,
        job_id=job_id,
        terms=Terms(webhook_url=url),
    ).job_id


def listed(line: Line, tenant: TenantId = TENANT) -> list[DeliveryInfo]:
    return list_deliveries(line.catalog, tenant=tenant)


def claim(line: Line, **options: Any) -> list[DeliveryInfo]:
    return claim_deliveries(line.catalog, now=line.now, **{**OPTIONS, **options})


def test_each_end_of_a_job_is_logged_once_with_the_end_itself(line):
    done, cancelled, unasked = submit(line, "a"), submit(line, "b"), submit(line, "c", url=None)
    cancel_job(line.catalog, tenant=TENANT, job_id=cancelled, now=line.now)
    assert [(one.job_id, one.state, one.url) for one in listed(line)] == [(cancelled, "waiting", URL)]
    line.run()
    assert {one.job_id for one in listed(line)} == {done, cancelled}
    assert get_job(line.catalog, tenant=TENANT, job_id=unasked).state == "done"
    cancel_job(line.catalog, tenant=TENANT, job_id=cancelled, now=line.now)  # twice is harmless
    assert len(listed(line)) == 2

    unchanged = submit(line, "a")
    assert listed(line)[0].job_id == unchanged


def test_a_job_that_goes_on_is_told_again_when_it_ends_again(line):
    job_id = submit(line, "a")
    line.run()
    submit(line, "b", job_id=job_id, url=None)
    line.run()
    assert [one.job_id for one in listed(line)] == [job_id, job_id]


def test_who_is_named_by_a_submission_of_nothing_new_is_told_once_of_the_job_that_is_done(line):
    job_id = submit(line, "a", url=None)
    line.run()
    for _ in range(2):
        submit(line, "a", job_id=job_id)
    assert [(one.job_id, one.url) for one in listed(line)] == [(job_id, URL)]


def test_a_job_that_names_nobody_is_told_to_whom_its_collection_names_and_else_to_whom_its_tenant_does(line):
    named = [f"https://example.com/{name}" for name in ("tenant", "collection", "job")]
    silent = submit(line, "a", url=None)
    set_default(line.catalog, TENANT, named[0])
    line.run()  # whoever is named when it ends is told
    set_default(line.catalog, TENANT, named[1], collection=line.collection.name)
    asked = submit(line, "b", url=named[2])
    line.run()
    removed = line.remove("a").job_id  # any kind of job
    line.run()
    assert [(one.job_id, one.url) for one in reversed(listed(line))] == [
        (silent, named[0]),
        (asked, named[2]),
        (removed, named[1]),
    ]
    assert read_defaults(line.catalog, TENANT) == WebhookDefaults(named[0], {line.collection.name: named[1]})

    set_default(line.catalog, TENANT, None, collection=line.collection.name)
    set_default(line.catalog, TENANT, None)
    submit(line, "c", url=None)
    line.run()
    assert (len(listed(line)), read_defaults(line.catalog, TENANT)) == (3, WebhookDefaults(None))


def test_a_default_is_its_tenants_alone_and_needs_a_secret_and_a_collection(line):
    other = new_line(line.catalog, tenant=create_tenant(line.catalog, "other", now=1.0))
    with pytest.raises(Conflict, match="webhooks/secret"):
        set_default(line.catalog, other.tenant, URL)
    rotate_secret(line.catalog, other.tenant, now=1.0)
    set_default(line.catalog, TENANT, URL)
    set_default(line.catalog, TENANT, URL, collection=line.collection.name)
    other.submit("a")
    other.run()
    assert listed(line, other.tenant) == []
    assert read_defaults(line.catalog, other.tenant) == WebhookDefaults(None)
    with pytest.raises(NotFound, match="'nope'"):
        set_default(line.catalog, TENANT, URL, collection="nope")


def test_an_end_that_is_not_committed_is_not_told(line, monkeypatch):
    job_id = submit(line, "a")

    def fail(_where: str) -> None:
        raise RuntimeError("dies here")

    monkeypatch.setattr("penstock.storage.catalog.engine.hit", fail)
    with pytest.raises(RuntimeError):
        cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now)
    assert listed(line) == []
    assert get_job(line.catalog, tenant=TENANT, job_id=job_id).state == "running"


def test_without_a_secret_nothing_is_accepted_and_the_way_out_is_told(line):
    other = new_line(line.catalog, tenant=create_tenant(line.catalog, "other", now=1.0))
    with pytest.raises(Conflict, match="webhooks/secret"):
        submit(other, "a")
    assert other.version_rows("id") == []


def test_a_secret_signs_on_for_a_day_after_it_was_replaced(catalog):
    first = rotate_secret(catalog, TENANT, now=10.0)
    second = rotate_secret(catalog, TENANT, now=20.0)
    assert (first.former_until, second.former_until) == (None, 20.0 + FORMER_S)
    assert signing_secrets(catalog, TENANT, now=30.0) == [second.secret, first.secret]
    assert signing_secrets(catalog, TENANT, now=20.0 + FORMER_S) == [second.secret]
    with pytest.raises(NotFound):
        rotate_secret(catalog, TenantId("nobody"), now=1.0)


def test_a_sender_that_dies_is_followed_by_another_under_the_same_id(line):
    cancel_job(line.catalog, tenant=TENANT, job_id=submit(line, "a"), now=line.now)
    (first,) = claim(line)
    assert claim(line) == []
    line.now += 31.0
    (second,) = claim(line, owner="another")
    assert (second.id, second.attempts) == (first.id, 2)
    end_delivery(line.catalog, first, state="dead", now=line.now)  # it woke up late: nobody listens
    assert listed(line)[0].state == "sending"
    end_delivery(line.catalog, second, state="delivered", now=line.now, status=200)
    assert (listed(line)[0].state, listed(line)[0].status) == ("delivered", 200)
    assert claim(line) == []


def test_a_tenant_with_slow_receivers_leaves_room_for_others(line):
    other = new_line(line.catalog, tenant=create_tenant(line.catalog, "other", now=1.0))
    rotate_secret(line.catalog, other.tenant, now=1.0)
    for number in range(6):
        cancel_job(line.catalog, tenant=TENANT, job_id=submit(line, f"d{number}"), now=line.now)
    assert len(claim(line, per_tenant=2)) == 2
    cancel_job(line.catalog, tenant=other.tenant, job_id=submit(other, "a"), now=line.now)
    assert [one.tenant_id for one in claim(line, per_tenant=2)] == [other.tenant]


def flood(line: Line, count: int, *, at: float) -> None:
    """Let so many deliveries of a tenant be due since ``at``."""
    row = {"tenant_id": line.tenant, "job_id": "job", "url": URL, "state": "waiting", "created_at": at}
    with line.catalog.write() as connection:
        rows = [{**row, "id": f"{line.tenant}{number:05}", "next_attempt_at": at} for number in range(count)]
        connection.execute(sa.insert(deliveries), rows)


def test_the_first_of_each_tenant_come_before_the_second_ones_and_who_waits_longest_first(line):
    others = [
        new_line(line.catalog, tenant=create_tenant(line.catalog, name, now=1.0)) for name in ("old", "new", "later")
    ]
    for one, at in zip([line, *others], (20.0, 10.0, 30.0, line.now + 1), strict=True):
        flood(one, 5, at=at)
    firsts = ["default", "new", "old"]
    assert sorted(one.tenant_id for one in claim(line, limit=3)) == firsts
    assert sorted(one.tenant_id for one in claim(line, limit=3, owner="another")) == firsts
    assert [one.tenant_id for one in claim(line, limit=1)] == ["old"]
    assert sorted(one.tenant_id for one in claim(line, limit=20)) == ["default", "default", "new", "new", "old"]
    assert claim(line, limit=20) == [], "of each tenant four are on their way"


def test_however_many_are_due_the_write_lock_is_held_for_those_that_are_taken(line):
    flood(line, 3_000, at=10.0)
    plans: list[str] = []

    def explain(connection, _cursor, statement, parameters, _context, _many) -> None:
        if not statement.startswith(("EXPLAIN", "BEGIN")):
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row.detail for row in plan if "deliveries" in row.detail)

    if line.catalog.dialect == "sqlite":
        sa.event.listen(line.catalog._writer, "before_cursor_execute", explain)
    assert len(claim(line)) == 4
    if line.catalog.dialect == "sqlite":
        sa.event.remove(line.catalog._writer, "before_cursor_execute", explain)
        assert plans
        assert [step for step in plans if "(id=?)" not in step and "ix_deliveries_sending" not in step] == []


def test_what_is_over_can_be_sent_again_by_its_tenant_alone_and_is_forgotten_after_a_week(line):
    cancel_job(line.catalog, tenant=TENANT, job_id=submit(line, "a"), now=line.now)
    (one,) = claim(line)
    with pytest.raises(Conflict):
        send_again(line.catalog, tenant=TENANT, delivery_id=one.id, now=line.now)
    retry_delivery(line.catalog, one, at=line.now, status=500, error="it answered 500")
    (one,) = claim(line)
    end_delivery(line.catalog, one, state="dead", now=line.now, error="gave up")
    other = create_tenant(line.catalog, "other", now=1.0)
    assert listed(line, other) == []
    with pytest.raises(NotFound):
        send_again(line.catalog, tenant=other, delivery_id=one.id, now=line.now)
    assert send_again(line.catalog, tenant=TENANT, delivery_id=one.id, now=line.now).attempts == 0
    (one,) = claim(line)
    end_delivery(line.catalog, one, state="delivered", now=line.now)
    assert forget_deliveries(line.catalog, now=line.now + KEPT_S - 1) == 0
    assert forget_deliveries(line.catalog, now=line.now + KEPT_S + 1) == 1
    assert listed(line) == []


class Receiver:
    """A server that answers with ``statuses`` one after the other, then 204; ``got`` has what came."""

    def __init__(self) -> None:
        self.got: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.hold = threading.Event()
        self.hold.set()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                owner.got.put(({name.lower(): value for name, value in self.headers.items()}, body))
                owner.hold.wait(30)
                status, headers = owner.answers.pop(0) if owner.answers else (204, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def sender(line: Line, **settings: Any) -> WebhookSender:
    chosen = Webhooks(**{"private": True, "timeout_s": 5.0, **settings})
    return WebhookSender(line.catalog, settings=chosen, owner="tests", clock=lambda: line.now, figures=Figures(None))


def send_due(line: Line, **settings: Any) -> int:
    """Make one attempt at everything that is due."""
    made, due = sender(line, **settings), claim(line)
    for one in due:
        asyncio.run(made.send(one))
    return len(due)


@contextmanager
def sending(line: Line) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=sender(line).run, args=[stop])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_receiver_is_told_what_became_of_the_job_signed_with_the_tenants_secret(line, receiver):
    secret = rotate_secret(line.catalog, TENANT, now=line.now).secret
    with sending(line):
        job_id = submit(line, "a", "b", url=receiver.url)
        line.run()
        headers, body = receiver.got.get(timeout=30)
    assert verify_webhook(secret, headers, body, clock=lambda: line.now) == listed(line)[0].id
    told = json.loads(body)
    assert (told["type"], told["data"]["id"], told["data"]["documents"]) == ("job.done", job_id, {"indexed": 2})
    assert headers["content-type"] == "application/json"
    assert listed(line)[0].state == "delivered"


@pytest.mark.parametrize("catalog_url", ["sqlite"], indirect=True)
def test_nothing_that_goes_wrong_while_it_looks_what_is_due_ends_the_sender(line, receiver, monkeypatch):
    failures = [RuntimeError("a defect"), Unavailable("the catalog is away")]

    def failing(*given: Any, **options: Any) -> list[DeliveryInfo]:
        if failures:
            raise failures.pop(0)
        return claim_deliveries(*given, **options)

    monkeypatch.setattr(webhooks, "EVERY_S", 0.01)
    monkeypatch.setattr(webhooks, "claim_deliveries", failing)
    submit(line, "a", url=receiver.url)
    line.run()
    with sending(line):
        receiver.got.get(timeout=30)
    assert failures == []


def test_what_is_refused_is_tried_again_later_and_given_up_with_its_reason(line, receiver):
    submit_and_cancel(line, receiver)
    receiver.answers = [(500, {}), (503, {"Retry-After": "100"}), (500, {})]
    assert send_due(line, max_attempts=3, retry_delay_s=8.0) == 1
    (one,) = listed(line)
    assert (one.state, one.status, one.error) == ("waiting", 500, "it answered 500")
    assert line.now <= one.next_attempt_at <= line.now + 8.0
    line.now += 8.0
    assert send_due(line, max_attempts=3, retry_delay_s=8.0) == 1
    assert listed(line)[0].next_attempt_at >= line.now + 100.0
    line.now += 120.0
    assert send_due(line, max_attempts=3, retry_delay_s=8.0) == 1
    assert (listed(line)[0].state, listed(line)[0].attempts) == ("dead", 3)
    ids = {receiver.got.get_nowait()[0]["webhook-id"] for _ in range(3)}
    assert ids == {listed(line)[0].id}


def submit_and_cancel(line: Line, receiver: Receiver, *, url: str | None = None) -> None:
    job_id = submit(line, "a", url=url or receiver.url)
    cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now)


def test_a_wish_that_is_no_number_of_seconds_is_no_failure_of_ours(line, receiver):
    submit_and_cancel(line, receiver)
    receiver.answers = [(503, {"Retry-After": "\xb2"})]
    send_due(line)
    assert (listed(line)[0].status, listed(line)[0].error) == (503, "it answered 503")


def test_a_receiver_that_is_gone_is_not_asked_again(line, receiver):
    submit_and_cancel(line, receiver)
    receiver.answers = [(410, {})]
    send_due(line)
    assert (listed(line)[0].state, listed(line)[0].status) == ("dead", 410)


def test_redirects_are_not_followed(line, receiver):
    submit_and_cancel(line, receiver)
    receiver.answers = [(307, {"Location": receiver.url})]
    send_due(line)
    assert "redirects" in listed(line)[0].error
    assert receiver.got.qsize() == 1


def test_a_receiver_that_does_not_answer_costs_no_more_than_its_time(line, receiver):
    receiver.hold.clear()
    submit_and_cancel(line, receiver)
    send_due(line, timeout_s=0.3)
    assert listed(line)[0].error == "no answer within 0.3 s"


def test_nobody_is_told_of_a_job_that_runs_again_or_is_gone(line, receiver):
    job_id = submit(line, "a", url=receiver.url)
    line.run()
    submit(line, "b", job_id=job_id)
    send_due(line)
    assert (listed(line)[0].state, listed(line)[0].error) == ("dropped", "it runs again")
    line.run()
    delete_collection(line.catalog, tenant=TENANT, name=line.collection.name)
    send_due(line)
    assert {one.state for one in listed(line)} == {"dropped"}
    assert receiver.got.empty()


def test_private_addresses_are_not_reached_by_whatever_name(line, receiver):
    port = receiver.url.split(":")[2]
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
        posted = asyncio.run(post(f"https://{host}:{port}", b"{}", {}, private=False, timeout_s=5.0))
        assert "no public address" in (posted.error or ""), host
        assert "127.0.0.1" not in (posted.error or "") or "127.0.0.1" in host, "what a name stands for is not told"
    posted = asyncio.run(post(receiver.url, b"{}", {}, private=False, timeout_s=5.0))
    assert "https://" in (posted.error or "")
    assert receiver.got.empty()


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(receiver, monkeypatch):
    asked: list[str] = []

    async def resolve(_self: Any, host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", resolve)
    port = receiver.url.rpartition(":")[2].partition("/")[0]
    posted = asyncio.run(post(f"http://receiver.test:{port}/x?y=1", b"{}", {}, private=True, timeout_s=5.0))
    assert (posted.status, asked) == (204, ["receiver.test", "127.0.0.1"][: len(asked)])
    assert receiver.got.get_nowait()[0]["host"] == f"receiver.test:{port}"
