"""What is told of costs over HTTP and by the command line, and what searches with a priced model cost."""

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from penstock import client
from penstock.api.cli.application import app
from penstock.pipeline.chunking import count_tokens
from penstock.storage.ids import TenantId

from ..embedding_endpoint import DIMENSIONS, Endpoint
from ..http_service import KEY, Service, running_service

PRICE = 1_000.0  # of a million tokens
MODEL = "openai/priced"


@pytest.fixture
def service(tmp_path, endpoint: Endpoint):
    embedding = {
        "model": MODEL,
        "openai_base_url": endpoint.url,
        "openai_dimensions": DIMENSIONS,
        "openai_usd_per_million_tokens": PRICE,
    }
    with running_service(tmp_path, embedding=embedding) as running:
        with running.penstock() as penstock:
            penstock.create_collection("docs")
        yield running


def search(service: Service, text: str, *, tenant: str = "default") -> None:
    with service.penstock(tenant) as penstock:
        penstock.search("docs", text)
    service.components.search_costs.flush()


def test_a_search_costs_its_tenant_what_the_provider_counts(service, endpoint):
    search(service, "how does water flow")
    tokens = count_tokens("how does water flow")
    with service.penstock() as penstock, service.penstock("other") as other:
        found = penstock.usage(by=["collection", "job", "model"])
        [row] = found.data
        assert (row.collection, row.job, row.model, row.day) == ("docs", None, MODEL, None)
        assert (row.calls, row.tokens, row.cost_usd) == (1, tokens, pytest.approx(tokens * PRICE / 1e6))
        assert found.total.cost_usd == row.cost_usd
        assert other.usage().data == []
        assert [one.tenant for one in other.usage(by="tenant", all_tenants=True).data] == ["default"]
        assert penstock.usage(until="2001-01-01").total.tokens == 0


def test_what_is_asked_wrongly_is_told(service):
    for query, param in (
        ("by=hour", "by"),
        ("by=day,day", "by"),
        ("since=yesterday", "since"),
        ("until=nan", "until"),
        ("since=2026-03-02&until=2026-03-01", "until"),
    ):
        answer = service.http.get(f"/v1/tenants/default/usage?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    with service.penstock("nobody") as penstock, pytest.raises(client.NotFound):
        penstock.usage()


def test_budgets_are_set_by_whoever_has_the_key_and_searches_over_one_are_refused(service):
    with service.penstock() as penstock:
        job = penstock.submit("docs", [client.NewDocument(source="a", text="one")], budget_usd=1.5).job
        assert job.budget_usd == 1.5
        upload = client.Upload(content=b"two", source="b")
        assert penstock.upload("docs", [upload], job_id=job.id, budget_usd=2.0).job.budget_usd == 2.0
        assert penstock.set_budget(job.id, None).budget_usd is None
        with service.penstock("other") as other, pytest.raises(client.NotFound):
            other.set_budget(job.id, 9.0)
        for wrong in (-1, float("nan")):
            with pytest.raises(client.Invalid):
                penstock.set_budget(job.id, wrong)

        assert penstock.change_tenant("default", monthly_budget_usd=0.003).monthly_budget_usd == 0.003
        service.components.search_costs.flush()
        penstock.search("docs", "three short words")
        with pytest.raises(client.OverBudget, match="monthly-budget") as refused:
            penstock.search("docs", "three more words")
        assert refused.value.code == "over_budget"
        assert penstock.search("docs", vector=[1.0] * DIMENSIONS).hits == []
        service.components.search_costs.flush()
        tenant = penstock.get_tenant("default")
        assert (tenant.month_spent_usd, tenant.month_reserved_usd) == (pytest.approx(0.003), 0.0)
        penstock.change_tenant("default", monthly_budget_usd=None)
        service.components.search_costs.flush()
        penstock.search("docs", "three more words")


def test_usage_is_a_table_with_a_chart_csv_or_json(service, monkeypatch):
    search(service, "how does water flow")
    costs, info = service.components.search_costs, service.components.lookups.collection("default", "docs")
    costs.payer(TenantId("default"), info.id, model="openai/unpriced", price=None).paid(7)
    costs.flush()
    for name, value in (("URL", service.url), ("API_KEY", KEY)):
        monkeypatch.setenv(f"PENSTOCK_{name}", value)

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, ["usage", *words])
        assert result.exit_code == 0, result
        return result.stdout

    shown = run("--by", "model")
    assert "$0.004" in shown
    assert "█" in shown
    assert "not known" in shown
    assert "the price of 7 tokens is not known" in shown
    rows = list(csv.DictReader(io.StringIO(run("--by", "model", "--by", "day", "--csv"))))
    assert [(row["model"], row["tokens"], row["cost_usd"]) for row in rows] == [
        (MODEL, "4", "0.004"),
        ("openai/unpriced", "7", ""),
    ]
    told = json.loads(run("--json"))
    assert told["total"]["cost_usd"] is None
    assert told["total"]["priced_usd"] == 0.004
