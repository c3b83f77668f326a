"""Shares, limits, priorities and pauses over HTTP, and what the wrong names and numbers are told."""

from unittest import mock

import httpx
import pytest
import sqlalchemy as sa

from penstock.client import Busy, Invalid, NewDocument, NotFound, TooLarge, Upload
from penstock.storage.catalog.batches import ready_batch
from penstock.storage.catalog.tables import PRIORITIES, batches, generations, versions

from ..http_service import KEY, running_service


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("fairness")) as running:
        yield running


@pytest.fixture
def tenant(service, request):
    """Return the client of a tenant of this test's own, with a collection."""
    name = f"t{abs(hash(request.node.name)) % 10**8}"
    with service.penstock(name) as client:
        client.create_tenant(name)
        client.create_collection("docs")
        yield client


def documents(*sources: str) -> list[NewDocument]:
    return [NewDocument(source=source, text=f"text of {source}") for source in sources]


def priorities(service, tenant: str) -> dict[str, str]:
    wanted = sa.select(versions.c.filename, versions.c.priority).where(versions.c.tenant_id == tenant)
    with service.components.catalog.read() as connection:
        return {name: PRIORITIES[priority] for name, priority in connection.execute(wanted)}


def test_a_tenants_share_and_limits_are_changed_and_null_brings_the_default_back(tenant):
    changed = tenant.change_tenant(tenant.tenant, weight=2.5, max_backlog_documents=10)
    assert (changed.weight, changed.max_backlog_documents, changed.max_backlog_bytes) == (2.5, 10, None)
    back = tenant.change_tenant(tenant.tenant, weight=None, max_backlog_documents=None)
    assert (back.weight, back.max_backlog_documents) == (1.0, None)
    assert tenant.get_tenant(tenant.tenant) == back


@pytest.mark.parametrize(
    ("body", "param"),
    [({"weight": 0}, "weight"), ({"weight": 1e9}, "weight"), ({"max_backlog_documents": 0}, "max_backlog_documents")],
)
def test_a_share_or_limit_that_cannot_be_is_refused_by_name(service, tenant, body, param):
    answer = service.http.patch(f"/v1/tenants/{tenant.tenant}", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_tenant_that_is_not_there_is_told_so_by_every_route(tenant):
    for ask in (tenant.get_tenant, tenant.pause_tenant, tenant.resume_tenant, tenant.change_tenant):
        with pytest.raises(NotFound, match="there is no tenant 'nobody'"):
            ask("nobody")


def test_none_of_it_is_done_without_the_key(service, tenant):
    for path in (f"/v1/tenants/{tenant.tenant}/pause", "/v1/pause", "/v1/resume"):
        assert httpx.post(service.url + path, headers={"Authorization": "Bearer no"}).status_code == 401
    assert tenant.get_tenant(tenant.tenant).paused_at is None


@pytest.mark.parametrize("way", ["json", "form"])
def test_a_submission_that_finds_no_room_is_refused_whole_and_told_when_to_come_again(service, tenant, way):
    tenant.change_tenant(tenant.tenant, max_backlog_documents=3)

    def submit(*sources):
        if way == "json":
            return tenant.submit("docs", documents(*sources))
        return tenant.upload("docs", [Upload(content=source.encode(), source=source) for source in sources])

    submit("a", "b")
    with pytest.raises(Busy, match="nothing was accepted: 2 documents of this tenant wait, and 3 may") as caught:
        submit("c", "d")
    assert (caught.value.status, caught.value.code) == (429, "backlog_full")
    assert caught.value.retry_after_s >= 1
    with pytest.raises(TooLarge, match="4 documents are more than may wait"):
        submit("c", "d", "e", "f")
    assert tenant.get_tenant(tenant.tenant).waiting_documents == 2
    assert {document.source for document in tenant.all_documents("docs")} == {"a", "b"}
    submit("c")
    service.index()
    assert tenant.search("docs", "text", k=10, min_token=tenant.collection("docs").token).hits


def test_a_full_backlog_is_told_before_the_body_is_read(service, tenant):
    tenant.change_tenant(tenant.tenant, max_backlog_documents=1)
    tenant.submit("docs", documents("a"))
    sent: list[int] = []

    def endless():
        for number in range(1_000):
            sent.append(number)
            yield b" " * 100_000

    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Expect": "100-continue"}
    path = f"{service.url}/v1/tenants/{tenant.tenant}/collections/docs/documents"
    try:
        answer = httpx.post(path, headers=headers, content=endless())
    except httpx.WriteError:  # it was answered and closed while this was still sending
        return
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_priority_goes_with_the_documents_and_a_word_that_is_none_is_refused(service, tenant):
    tenant.submit("docs", documents("a"), priority="high")
    tenant.upload("docs", [Upload(content=b"b", source="b", filename="b")], priority="low")
    tenant.submit("docs", documents("c"))
    assert priorities(service, tenant.tenant) == {"a": "high", "b": "low", "c": "normal"}
    with pytest.raises(Invalid, match="priority"):
        tenant.submit("docs", documents("d"), priority="urgent")
    files = {"files": ("d.txt", b"d")}
    path = f"/v1/tenants/{tenant.tenant}/collections/docs/documents"
    answer = service.http.post(path, files=files, data={"priority": "urgent"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "priority")


def test_a_pause_is_told_by_status_and_metrics_and_searches_and_submissions_go_on(service, tenant):
    tenant.submit("docs", documents("a"))
    service.index()
    assert tenant.pause_tenant(tenant.tenant).paused_at == tenant.pause_tenant(tenant.tenant).paused_at
    tenant.pause()
    tenant.submit("docs", documents("b"))
    assert len(tenant.search("docs", "text", min_token=tenant.collection("docs").token).hits) == 1
    status = tenant.status()
    assert status.paused_at is not None
    assert status.paused_tenants == [tenant.tenant]
    shown = service.http.get("/metrics").text
    assert "penstock_paused 1.0" in shown
    assert "penstock_paused_tenants 1.0" in shown
    assert tenant.resume().tenants == [tenant.tenant]
    assert tenant.resume_tenant(tenant.tenant).paused_at is None
    assert (tenant.status().paused_at, tenant.status().paused_tenants) == (None, [])


def test_a_shard_that_nobody_writes_is_named_by_status_and_readiness(service, tenant):
    tenant.submit("docs", documents("a"))
    with service.components.catalog.write() as connection:
        mine = sa.select(generations.c.id).where(generations.c.tenant_id == tenant.tenant)
        place = {"tenant": tenant.tenant, "generation_id": connection.scalars(mine).one(), "shard": 7}
        waits = ready_batch("index", now=service.components.clock() - 61.0, **place)
        connection.execute(sa.insert(batches).values(waits))
    assert tenant.status().unwritten_shards == [7]
    degraded = service.http.get("/readyz").json()["degraded"]
    assert [one for one in degraded if "shard 7: nobody writes it" in one and "penstock worker index" in one]


def test_a_role_of_which_nobody_is_there_is_named_by_status_and_readiness_while_its_work_waits(service, tenant):
    tenant.submit("docs", documents("a"))
    with service.components.catalog.write() as connection:
        mine = sa.select(generations.c.id).where(generations.c.tenant_id == tenant.tenant)
        place = {"tenant": tenant.tenant, "generation_id": connection.scalars(mine).one(), "shard": 0}
        waits = ready_batch("embed", now=service.components.clock() - 61.0, **place)
        connection.execute(sa.insert(batches).values(waits))
    with mock.patch.object(service.components.presence, "roles", return_value=[]):
        assert tenant.status().absent_roles == ["embed"]
        assert [one for one in service.http.get("/readyz").json()["degraded"] if one.startswith("role embed: nobody")]
    here = mock.Mock(role="embed", still_s=None)
    with mock.patch.object(service.components.presence, "roles", return_value=[here]):
        assert not [one for one in service.http.get("/readyz").json()["degraded"] if "embed" in one]


def test_economy_is_refused_where_a_model_is_not_to_be_had_for_less(service, tenant):
    with pytest.raises(Invalid, match="not to be had for less") as refused:
        tenant.submit("docs", documents("a"), priority="economy")

    assert (refused.value.code, refused.value.param) == ("no_economy", "priority")
    assert priorities(service, tenant.tenant) == {}
