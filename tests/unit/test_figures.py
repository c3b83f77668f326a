"""What the roles measure: added up by many processes, exposed by one, and told in the docs."""

import re
from pathlib import Path

import fakeredis
import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from penstock.api.http.collectors import (
    MOST_TENANTS,
    OTHERS,
    CacheCollector,
    FiguresCollector,
    LedgerCollector,
    RatesCollector,
    ScheduleCollector,
    SnapshotCollector,
    _waiting,
)
from penstock.api.http.metrics import Metrics
from penstock.settings.model import Settings
from penstock.settings.wiring import new_snapshots, open_catalog, open_objects
from penstock.storage.catalog.migrations import migrate
from penstock.storage.figures import FAMILIES, Figure, Figures, bound_of
from penstock.storage.ids import NAME, TenantId
from penstock.storage.presence import RoleInfo

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"


def exposed(figures: Figures) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    registry.register(FiguresCollector(figures))
    text = generate_latest(registry).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


def test_what_several_processes_add_is_one_sum():
    server = fakeredis.FakeServer()
    one, two = (Figures(fakeredis.FakeRedis(server=server)) for _ in range(2))
    one.add([Figure("penstock_stage_seconds", ("embed",), 0.02), Figure("penstock_attempts", ("embed", "done"))])
    two.add([Figure("penstock_stage_seconds", ("embed",), 7.0), Figure("penstock_attempts", ("embed", "done"))])
    two.add(
        [Figure("penstock_stage_seconds", ("embed",), 1e6), Figure("penstock_embedded_chunks", ("cache",), times=5)]
    )
    told = exposed(one)
    stage = ("stage", "embed")
    assert told["penstock_stage_seconds_count", (stage,)] == 3
    assert told["penstock_stage_seconds_sum", (stage,)] == pytest.approx(1e6 + 7.02)
    assert told["penstock_stage_seconds_bucket", (("le", "0.025"), stage)] == 1
    assert told["penstock_stage_seconds_bucket", (("le", "5.0"), stage)] == 1
    assert told["penstock_stage_seconds_bucket", (("le", "10.0"), stage)] == 2
    assert told["penstock_stage_seconds_bucket", (("le", "+Inf"), stage)] == 3
    assert told["penstock_attempts_total", (("outcome", "done"), stage)] == 2
    assert told["penstock_embedded_chunks_total", (("source", "cache"),)] == 5


def test_without_a_server_work_goes_on_and_metrics_are_without_them():
    now = [0.0]
    figures = Figures(redis.Redis.from_url("redis://127.0.0.1:1/0"), clock=lambda: now[0])
    figures.add([Figure("penstock_attempts", ("embed", "done"))])
    assert exposed(figures) == {}
    assert exposed(Figures(None)) == {}


def test_what_another_program_added_is_left_out():
    client = fakeredis.FakeRedis()
    client.hset("penstock:figures", mapping={"penstock_unknown|x|count": 1, "penstock_attempts|x|count": 1})
    assert exposed(Figures(client)) == {}


def test_a_value_on_a_bound_belongs_below_it():
    assert [bound_of(value, (0.1, 1.0)) for value in (0.0, 0.1, 0.2, 1.0, 1.1)] == ["0.1", "0.1", "1.0", "1.0", "+Inf"]


def test_of_many_tenants_those_that_wait_longest_are_named_and_the_others_are_one():
    oldest = {(TenantId(f"t{number}"), "embed"): float(number) for number in range(100)}
    told = {sample.labels["tenant"]: sample.value for sample in _waiting(oldest, now=1_000.0).samples}
    assert len(told) == MOST_TENANTS + 1
    assert told["t0"] == 1_000.0
    assert told[OTHERS] == 1_000.0 - MOST_TENANTS
    assert not NAME.fullmatch(OTHERS)


def test_the_docs_list_every_figure_and_no_other(tmp_path):
    settings = Settings(data_dir=tmp_path)
    catalog, objects = open_catalog(settings), open_objects(settings)
    migrate(catalog)
    snapshots = new_snapshots(settings, catalog, objects)
    try:
        roles = FiguresCollector(Figures(fakeredis.FakeRedis()))
        cache = CacheCollector(fakeredis.FakeRedis(), limit_bytes=1 << 20)
        rates = RatesCollector(fakeredis.FakeRedis())
        schedules = ScheduleCollector(catalog)
        metrics = Metrics([LedgerCollector(catalog), schedules, roles, cache, rates, SnapshotCollector(snapshots)])
        metrics.observe(route="/", method="GET", status=200, seconds=0.1)
        text = metrics.exposition().decode()
    finally:
        snapshots.close()
        catalog.dispose()
    found = {family.name for family in text_string_to_metric_families(text)}
    cells = re.findall(r"^\| (`penstock_[^|]+)", DOCS.read_text(), re.MULTILINE)
    listed = {name.removesuffix("_total") for name in re.findall(r"`(penstock_\w+)`", " ".join(cells))}
    assert {name for name in found if not name.endswith("_created")} == listed
    assert set(FAMILIES) <= listed


@pytest.mark.parametrize(
    ("role", "moved_s", "still"),
    [("beat", 20, False), ("beat", 31, True), ("embed", 300, False), ("embed", 400, True), ("maintenance", 9e9, False)],
)
def test_a_role_stands_still_when_its_work_does_not_move_however_alive_it_is(role, moved_s, still):
    info = RoleInfo(role, "host", 1, started_at=0.0, seen_at=1e10, progress_at=1e10 - moved_s, doing="1 task")
    assert info.still_s == (moved_s if still else None)
