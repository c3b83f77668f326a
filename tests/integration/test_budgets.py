"""The roles and a provider with a price: what a job may cost is never overspent, and it costs what was billed."""

import pytest

from penstock.pipeline.chunking import count_tokens
from penstock.storage.catalog.budgets import set_job_budget
from penstock.storage.catalog.tenants import change_tenant
from penstock.storage.costs import read_costs
from penstock.storage.intake.documents import SubmittedDocument, Terms
from penstock.storage.reembedding.commands import set_budget
from penstock.workers import following

from ..embedding_endpoint import DIMENSIONS, Endpoint
from ..reembedded_line import reembedded_line
from ..role_line import ACME, RoleLine, role_line

PRICE = 1_000.0  # of a million tokens


def settings_of(endpoint: Endpoint, model: str = "openai/priced") -> dict[str, object]:
    return {
        "model": model,
        "openai_base_url": endpoint.url,
        "openai_dimensions": DIMENSIONS,
        "openai_usd_per_million_tokens": PRICE,
    }


@pytest.fixture
def line(tmp_path, endpoint: Endpoint):
    embedding = settings_of(endpoint)
    with role_line(tmp_path, seed=1, embedding=embedding, workers={"retry_delay_s": 0.01}) as made:
        yield made


def documents(name: str, count: int) -> list[SubmittedDocument]:
    return [
        SubmittedDocument(f"{name}{number}", "a.txt", f"{name} {number} tells how water turns wheels.".encode())
        for number in range(count)
    ]


def work(line: RoleLine) -> None:
    """Do all that is due."""
    for _ in range(12):
        line.send()
        while line.messages:
            line.work()
        line.publish()


def billed_usd(endpoint: Endpoint) -> float:
    return endpoint.billed_tokens * PRICE / 1e6


def test_a_job_stops_before_its_budget_is_overspent_others_go_on_and_a_raised_budget_resumes_it(line, endpoint):
    poor = line.accept(documents("poor", 20), terms=Terms(budget_usd=0.05))
    rich = line.accept(documents("rich", 5))
    work(line)
    assert line.job(rich).state == "done"
    stopped = line.job(poor)
    assert stopped.state == "running"
    assert stopped.held_up is not None
    assert stopped.held_up.paused
    assert f"penstock jobs budget {poor.job_id} --set" in stopped.held_up.reason
    assert 0.0 < stopped.cost_usd <= 0.05
    asked = len(endpoint.requests)
    work(line)
    assert len(endpoint.requests) == asked, "what has no money is not tried again and again"

    set_job_budget(line.catalog, tenant=ACME, job_id=poor.job_id, budget_usd=10.0)
    work(line)
    assert line.job(poor).state == "done"
    total = line.job(poor).cost_usd + line.job(rich).cost_usd
    assert total == pytest.approx(billed_usd(endpoint))
    [row] = read_costs(line.catalog, by=())
    assert row.amounts.cost_usd == pytest.approx(total)


def test_a_month_is_not_overspent_by_all_jobs_together(line, endpoint):
    change_tenant(line.catalog, ACME, monthly_budget_usd=0.08)
    accepted = [line.accept(documents(name, 6)) for name in ("one", "two", "three")]
    work(line)
    assert 0.0 < billed_usd(endpoint) <= 0.08
    assert any(line.job(one).held_up for one in accepted)
    change_tenant(line.catalog, ACME, monthly_budget_usd=None)
    work(line)
    assert {line.job(one).state for one in accepted} == {"done"}


def test_calls_that_failed_count_against_a_budget(line, endpoint):
    [document] = documents("doc", 1)
    once = count_tokens(document.data.decode()) * PRICE / 1e6
    job = line.accept([document], terms=Terms(budget_usd=1.5 * once))
    endpoint.fault = lambda handler, request: handler.answer(200, b"{", claimed_bytes=99)
    work(line)
    with line.catalog.write() as connection:
        connection.exec_driver_sql("UPDATE batches SET next_attempt_at = 0")
    work(line)
    held = line.job(job).held_up
    assert held is not None
    assert held.paused
    assert line.job(job).cost_usd == pytest.approx(once)
    assert read_costs(line.catalog, by=())[0].amounts.failed_calls == len(endpoint.requests) == 1


def test_a_reembedding_stops_before_its_budget_is_overspent_and_goes_on_with_more(tmp_path, endpoint, monkeypatch):
    monkeypatch.setattr(following, "part_chunks_of", lambda _model: 2)
    with reembedded_line(tmp_path, embedding=settings_of(endpoint, "hash-256")) as line:
        line.accept(documents("doc", 12))
        line.drain()
        line.begin("openai/priced-256", budget_usd=0.05, forced=True)
        for _ in range(6):
            line.step()
        stopped, asked = line.info(), len(endpoint.requests)
        assert 0.0 < billed_usd(endpoint) <= 0.05
        assert stopped.cost_usd == pytest.approx(billed_usd(endpoint))
        assert (stopped.state, stopped.held_up.paused) == ("copying", True)
        assert "penstock reembed docs --set-budget" in stopped.held_up.reason
        assert line.current().generation.model == "hash-256"
        line.step()
        assert len(endpoint.requests) == asked, "what has no money is not tried again and again"

        set_budget(line.catalog, line.current(), budget_usd=10.0)
        done = line.until("switched")
        assert done.cost_usd > 0.05
        [row] = [row for row in read_costs(line.catalog, by=("job",)) if row.named["job"] == done.id]
        assert row.amounts.cost_usd == pytest.approx(done.cost_usd)
