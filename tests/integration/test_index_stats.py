"""`penstock index stats` and its route against a real server."""

import asyncio
import json
import threading
import time
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from penstock import client
from penstock.api.cli.application import app
from penstock.api.http import inspecting
from penstock.client import NewDocument
from penstock.storage.catalog.collections import get_collection
from penstock.storage.ids import TenantId
from penstock.storage.inspection.probing import Probe

from ..http_service import KEY, running_service

PATH = "/v1/tenants/default/collections/figures/index"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("http")) as running:
        with running.penstock() as penstock:
            penstock.create_collection("figures")
            penstock.create_collection("empty")
            token = penstock.submit(
                "figures", [NewDocument(source=f"d{n}", text=f"weir number {n} and its gate") for n in range(30)]
            ).job.id
            running.index()
            done = penstock.wait(token, timeout_s=10)
            penstock.search("figures", "weir", min_token=done.token)
        yield running


@pytest.fixture
def penstock(service, monkeypatch):
    monkeypatch.setenv("PENSTOCK_URL", service.url)
    monkeypatch.setenv("PENSTOCK_API_KEY", KEY)
    return lambda *words: CliRunner().invoke(app, ["index", "stats", *words], catch_exceptions=False)


def test_the_figures_and_the_probe_come_from_the_served_version(service):
    with service.penstock() as penstock:
        found = penstock.index_stats("figures", probe=20)
    assert (found.collection, found.model, found.dimensions, found.metric) == ("figures", "hash", 384, "cosine")
    assert (found.version, found.rows, found.live, found.deleted) == (1, 30, 30, 0)
    assert [(one.kind, one.rows) for one in found.segments] == [("flat", 30)]
    assert found.bytes_per_vector == found.segments[0].bytes_per_vector > 4 * 384
    assert (found.probe.wanted, found.probe.asked, found.probe.self_recall, found.probe.recall) == (20, 20, 1.0, 1.0)


@pytest.mark.parametrize("started", [True, False])
def test_a_request_that_is_cancelled_lets_its_snapshot_go(service, monkeypatch, started):
    components = service.components
    info = get_collection(components.catalog, tenant=TenantId("default"), name="figures")
    taking, go_on, get = threading.Event(), threading.Event(), components.snapshots.get
    taken = []

    @contextmanager
    def slowly(*args, **options):
        with get(*args, **options) as snapshot:
            taken.append(snapshot)
            taking.set()
            go_on.wait(10)
            yield snapshot

    async def ask_and_cancel() -> None:
        asking = asyncio.create_task(inspecting.index_stats(components, info, probe=0))
        if started:
            await asyncio.to_thread(taking.wait, 10)
        else:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    with monkeypatch.context() as patched:
        patched.setattr(components.snapshots, "get", slowly)
        asyncio.run(ask_and_cancel())
        go_on.set()
    assert len(taken) == started
    deadline = time.monotonic() + 10
    while any(snapshot._holders for snapshot in taken):
        assert time.monotonic() < deadline, "the snapshot is held for nobody"


def test_without_a_probe_none_is_told(service):
    assert service.http.get(PATH).json()["probe"] is None


def test_an_empty_index_is_no_error(service):
    with service.penstock() as penstock:
        found = penstock.index_stats("empty", probe=5)
    assert (found.version, found.rows, found.bytes_per_vector, found.segments) == (0, 0, None, [])
    assert (found.probe.asked, found.probe.recall) == (0, None)


@pytest.mark.parametrize(("path", "status"), [("empty/index?probe=201", 400), ("empty/index?probes=1", 400),
                                              ("none/index", 404)])  # fmt: skip
def test_wrong_questions_are_refused(service, path, status):
    assert service.http.get(f"/v1/tenants/default/collections/{path}").status_code == status


def test_the_index_of_another_tenant_does_not_exist(service):
    with service.penstock("other") as penstock, pytest.raises(client.NotFound):
        penstock.index_stats("figures")


def test_searches_have_their_turn_while_a_probe_runs(service, monkeypatch):
    """The probe goes on until the searches have their answers, however slow this machine is."""
    ask, begun, enough = Probe.ask, threading.Event(), threading.Event()

    def again(self, number: int):
        begun.set()
        return ask(self, number % 30)

    monkeypatch.setattr(Probe, "ask", again)
    monkeypatch.setattr(Probe, "__len__", lambda _: 0 if enough.is_set() else 10**9)
    monkeypatch.setattr(inspecting, "PROBE_S", 1e9)
    told: list[int] = []
    probing = threading.Thread(target=lambda: told.append(service.http.get(PATH, params={"probe": 200}).status_code))
    probing.start()
    try:
        assert begun.wait(60)
        with service.penstock() as penstock:
            for number in range(5):
                assert penstock.search("figures", f"weir {number}").hits
        assert told == [], "the probe runs still"
    finally:
        enough.set()
        probing.join()
    assert told == [200]


def test_a_probe_ends_when_its_time_is_over_and_says_how_far_it_came(service, monkeypatch):
    monkeypatch.setattr(inspecting, "PROBE_S", 0.0)
    probe = service.http.get(PATH, params={"probe": 10}).json()["probe"]
    assert (probe["wanted"], probe["asked"], probe["recall"]) == (10, 0, None)


def test_the_command_shows_a_table_and_json(penstock):
    shown = penstock("figures").output
    assert "figures: hash, 384 dimensions, cosine; version 1" in shown
    assert "flat" in shown
    assert "self-recall 1.000, recall@10 1.000" in shown
    told = json.loads(penstock("figures", "--json", "--probe", "0").stdout)
    assert (told["live"], told["probe"]) == (30, None)
    assert "empty" in penstock("empty").output
