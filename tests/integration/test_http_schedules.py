"""Schedules at the doors: HTTP, the client and the command line say the same, and refuse what cannot be."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from penstock.api.cli.application import app
from penstock.api.cli.exits import ExitCode, UsageError
from penstock.client import Conflict, Invalid, NotFound
from penstock.client.wire import ScheduleOptions
from penstock.storage import schedules as stored

from ..http_service import KEY, Service, running_service

DAILY = "0 3 * * *"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schedules")
    allowed = {"sync_roots": (Path("/srv"),), "backup_roots": (Path("/backups"),)}
    with running_service(folder, schedules=allowed) as running, running.penstock() as client:
        client.create_collection("notes")
        client.create_collection("other")
        yield running


@pytest.fixture
def penstock(service):
    with service.penstock() as client:
        yield client
        for everything in (False, True):
            for one in client.schedules(everything=everything):
                client.delete_schedule(one.id, everything=everything)


@pytest.fixture
def said(service):
    def run(*words: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [*words, "--url", service.url, "--key", KEY], standalone_mode=True)
        assert result.exit_code == code, (result.output, result.exception)
        return json.loads(result.stdout) if "--json" in words else " ".join(result.output.split())

    return run


def end(service: Service, schedule_id: str, *, state: str, **told: Any) -> None:
    """Let a worker do the run that waits."""
    catalog, now = service.components.catalog, time.time()
    run = stored.claim_run(catalog, owner="tests", lease_s=60.0, now=now, most=9)
    assert run is not None
    assert run.schedule_id == schedule_id
    stored.end_run(catalog, run, state=state, now=now, **{"progress": {}, **told})


def test_a_schedule_is_made_shown_run_and_forgotten(service, penstock):
    made = penstock.add_schedule(
        "notes", "sync", cron=DAILY, timezone="Europe/Berlin", options=ScheduleOptions(folder="/srv/notes")
    )
    assert (made.tenant, made.collection, made.options) == ("default", "notes", {"folder": "/srv/notes"})
    assert time.time() < made.next_run_at <= time.time() + 25 * 3_600
    assert penstock.schedules() == penstock.schedules("notes") == [made]
    assert penstock.schedules("other") == []
    run = penstock.run_schedule(made.id)
    assert (run.state, run.asked) == ("waiting", True)
    with pytest.raises(Conflict, match="still going"):
        penstock.run_schedule(made.id)
    end(service, made.id, state="failed", reason="the folder is away")
    assert penstock.schedule(made.id).last_run.reason == "the folder is away"
    penstock.run_schedule(made.id)
    end(service, made.id, state="ok", progress={"added": 3})
    page = penstock.schedule_runs(made.id, limit=1)
    assert ([one.state for one in page.data], page.has_more) == (["ok"], True)
    assert [one.state for one in penstock.schedule_runs(made.id, after=page.last_id).data] == ["failed"]
    assert penstock.schedule(made.id).last_success_at is not None
    paused = penstock.pause_schedule(made.id)
    assert (paused.next_run_at, paused.paused_at is None) == (None, False)
    assert penstock.resume_schedule(made.id).next_run_at == made.next_run_at
    penstock.delete_schedule(made.id)
    with pytest.raises(NotFound):
        penstock.schedule(made.id)


def test_the_installations_own_are_kept_apart_from_those_of_tenants(penstock):
    whole = penstock.add_schedule(None, "backup", every_s=86_400.0, options=ScheduleOptions(destination="/backups/a"))
    assert (whole.tenant, whole.collection) == (None, None)
    assert penstock.schedules() == []
    assert penstock.schedules(everything=True) == [whole]
    with pytest.raises(NotFound):
        penstock.schedule(whole.id)
    assert penstock.run_schedule(whole.id, everything=True).asked
    assert penstock.pause_schedule(whole.id, everything=True).paused_at
    assert penstock.resume_schedule(whole.id, everything=True).next_run_at
    assert len(penstock.schedule_runs(whole.id, everything=True).data) == 1


@pytest.mark.parametrize(
    ("asked", "param", "told"),
    [
        ({"action": "expire", "cron": "0 25 * * *"}, "cron", "hour '25'"),
        ({"action": "expire"}, "cron", "give one of the two"),
        ({"action": "expire", "cron": DAILY, "timezone": "Mars/Base"}, "timezone", "no time zone"),
        ({"action": "expire", "every_s": 5.0}, "every_s", "from a minute"),
        ({"action": "expire", "cron": DAILY, "jitter_s": 1e9}, "jitter_s", "use 0 to 86400"),
        ({"action": "dance", "cron": DAILY}, "action", "'reembed', 'sync', 'expire', 'merge' or 'backup'"),
        ({"action": "sync", "cron": DAILY}, "options.folder", "needs options.folder"),
        ({"action": "sync", "cron": DAILY, "options": {"folder": "/etc"}}, "options.folder", "schedules.sync_roots"),
        ({"action": "sync", "cron": DAILY, "options": {"folder": "/srvx"}}, "options.folder", "sync_roots"),
        ({"action": "sync", "cron": DAILY, "options": {"folder": "/srv/../etc"}}, "options.folder", "'..'"),
        ({"action": "sync", "cron": DAILY, "options": {"folder": "notes"}}, "options.folder", "from the root"),
        (
            {"action": "backup", "cron": DAILY, "options": {"destination": "/srv"}},
            "options.destination",
            "backup_roots",
        ),
        ({"action": "expire", "cron": DAILY, "options": {"folder": "/srv/a"}}, "options.folder", "no option 'folder'"),
        (
            {"action": "reembed", "cron": DAILY, "options": {"model": "bert"}},
            "options.model",
            "no embedding model 'bert'",
        ),
        (
            {"action": "reembed", "cron": DAILY, "options": {"chunking": {"size_tokens": 20, "overlap_tokens": 19}}},
            "options.chunking",
            "more than half",
        ),
        ({"action": "reembed", "cron": DAILY, "options": {"dimensions": 300}}, "options.dimensions", "cut to 300"),
        ({"action": "expire", "cron": DAILY, "options": {"economy": True}}, "options.economy", "no option 'economy'"),
        ({"action": "expire", "cron": DAILY, "options": {"fold": 1}}, "options.fold", "did you mean 'folder'"),
    ],
)
def test_what_cannot_be_is_refused_naming_the_field(service, asked, param, told):
    answer = service.http.post("/v1/tenants/default/collections/notes/schedules", json=asked)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert told in answer.json()["error"]["message"]


def test_what_is_of_one_collection_is_no_schedule_of_everything(service):
    asked = {"action": "sync", "cron": DAILY, "options": {"folder": "/srv/a"}}
    answer = service.http.post("/v1/schedules", json=asked)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "action")


def test_metrics_tell_how_long_ago_each_ended_well_and_nothing_of_those_that_are_paused(service, penstock):
    made, paused = (penstock.add_schedule("notes", "expire", cron=DAILY) for _ in range(2))
    penstock.pause_schedule(paused.id)
    penstock.run_schedule(made.id)
    end(service, made.id, state="ok")
    lines = service.http.get("/metrics").text.splitlines()
    (told,) = [line for line in lines if line.startswith("penstock_schedule_last_success_seconds{")]
    assert f'schedule="{made.id}",tenant="default"' in told.replace('action="expire",', "")
    assert 0 <= float(told.rpartition(" ")[2]) < 60


@pytest.mark.parametrize("key", ["wrong", None])
def test_whoever_has_no_key_learns_nothing_of_schedules(service, penstock, key):
    made = penstock.add_schedule("notes", "expire", cron=DAILY)
    headers = {"Authorization": f"Bearer {key}" if key else ""}
    for base in ("/v1/schedules", "/v1/tenants/default/schedules"):
        asks = [("GET", base), *(("GET", f"{base}/{one}") for one in (made.id, "sched_none"))]
        asks += [("POST", f"{base}/{made.id}/{what}") for what in ("run", "pause", "resume")]
        answers = {service.http.request(*ask, headers=headers).text for ask in asks}
        assert len(answers) == 1
        assert service.http.delete(f"{base}/{made.id}", headers=headers).status_code == 401
    assert penstock.schedule_runs(made.id).data == []


def test_the_command_line_makes_lists_and_follows(service, said, penstock):
    made = said("schedules", "add", "notes", "sync", "/srv/notes", "--cron", DAILY, "--delete-much", "--json")
    assert made["options"] == {"folder": "/srv/notes", "delete_much": True}
    text = said("schedules", "add", "notes", "expire", "--every", "6h", "--jitter", "10m")
    assert "every 6 h, up to 10 min later; next 20" in text
    assert "(in 6 h)" in text
    listed = said("schedules", "list")
    assert (made["id"] in listed, "0 3 * * *" in listed, "(in " in listed) == (True, True, True)
    assert said("schedules", "list", "-c", "other").startswith("tenant 'default' has no schedules")
    assert "is paused since" in said("schedules", "pause", made["id"])
    assert "paused" in said("schedules", "show", made["id"])
    assert "goes on; next 20" in said("schedules", "resume", made["id"])
    assert "waiting" in said("schedules", "run", made["id"])
    end(service, made["id"], state="failed", reason="the folder is [away]")
    told = said("schedules", "history", made["id"])
    for word in ("(asked for)", "failed", "the folder is [away]"):
        assert word in told
    asked_nobody = CliRunner().invoke(
        app, ["schedules", "delete", made["id"], "--json", "--url", service.url, "--key", KEY]
    )
    assert isinstance(asked_nobody.exception, UsageError), "programs are asked for consent, too"
    assert made["id"] in said("schedules", "list")
    assert said("schedules", "delete", made["id"], "--json", "--yes") == {"id": made["id"], "deleted": True}
    again = (
        "notes",
        "reembed",
        "--chunk-size",
        "200",
        "--quantization",
        "int8",
        "--keep-former",
        "6d",
        "--every",
        "7d",
    )
    options = said("schedules", "add", *again, "--json")["options"]
    assert (options.pop("chunking")["size_tokens"], options) == (200, {"quantization": "int8", "keep_s": 518_400.0})
    whole = said("schedules", "add", "backup", "/backups/a", "--keep", "7", "--every", "1d", "--all", "--json")
    assert (whole["collection"], whole["options"]) == (None, {"destination": "/backups/a", "keep": 7})
    assert "(all)" in said("schedules", "list", "--all")


@pytest.mark.parametrize(
    "words",
    [
        ("notes", "expire"),
        ("notes", "dance", "--every", "1h"),
        ("notes", "expire", "/srv/a", "--every", "1h"),
        ("notes", "expire", "--every", "1 hour"),
        ("notes", "expire", "--cron", "61 * * * *"),
        ("notes", "--all", "expire", "--every", "1h"),
        ("notes", "sync", "/srv/a", "b", "--every", "1h"),
        ("notes", "reembed", "--model", "", "--every", "1h"),
    ],
)
def test_wrong_usage_makes_no_schedule(service, penstock, words):
    result = CliRunner().invoke(app, ["schedules", "add", *words, "--url", service.url, "--key", KEY])
    assert isinstance(result.exception, UsageError | Invalid), result.exception
    assert penstock.schedules() == []


def test_a_run_that_is_waited_for_ends_the_command_with_its_outcome(service, said, penstock, monkeypatch):
    made = penstock.add_schedule("notes", "expire", cron=DAILY)
    for state, code in (("ok", ExitCode.OK), ("failed", ExitCode.ERROR)):

        def work(_seconds: float, state: str = state) -> None:
            end(service, made.id, state=state, progress={"expired": 3})

        monkeypatch.setattr("penstock.api.cli.schedules.time.sleep", work)
        assert f"{state} (expired 3)" in said("schedules", "run", made.id, "--wait", code=code)
