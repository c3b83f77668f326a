"""What schedules do: a folder is followed, what expired leaves; killed, stopped or repeated, no run does harm."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from penstock.pipeline.embedding import Embedders
from penstock.settings import wiring
from penstock.settings.model import Limits, Schedules, Settings
from penstock.storage import schedules
from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.jobs import cancel_job
from penstock.storage.catalog.tables import versions
from penstock.storage.figures import Figures
from penstock.storage.ids import JobId, ScheduleId
from penstock.storage.schedules import Cadence, NewSchedule, Owner, RunInfo
from penstock.workers.components import Components
from penstock.workers.liveness import Liveness
from penstock.workers.runs import ACTIONS, ScheduleRuns

from ..ledger_line import TENANT, Line, document, new_line

NOBODY = "redis://127.0.0.1:1/0"  # no server: notices are lost


@dataclass
class Desk:
    """A schedule of the line's collection, and a process that does its runs."""

    line: Line
    folder: Path
    settings: Settings
    actions: dict[str, Any] = field(default_factory=lambda: dict(ACTIONS))

    def __post_init__(self) -> None:
        self.owner = Owner(TENANT, self.line.collection.id)
        self.liveness = Liveness()
        components = Components(
            settings=self.settings,
            catalog=self.line.catalog,
            objects=self.line.objects,
            notices=wiring.open_notices(self.settings),
            embedders=Embedders(lambda _model, _dimensions: pytest.fail("nothing is embedded")),
            figures=Figures(None),
            owner="maintenance",
            clock=lambda: self.line.now,
        )
        self.runs = ScheduleRuns(components, liveness=self.liveness, actions=self.actions)

    def add(self, action: str = "sync", **options: Any) -> str:
        given = {"folder": str(self.folder), **options} if action == "sync" else options
        new = NewSchedule(action, given, Cadence(every_s=3_600.0))
        made = schedules.add_schedule(self.line.catalog, self.owner, new, now=self.line.now, chance=lambda: 0.0)
        return made.id

    def run(self, schedule_id: str) -> RunInfo:
        """Run a schedule now, once, and return how far that came."""
        schedules.run_now(self.line.catalog, self.owner, schedule_id, now=self.line.now)
        return self.go_on(schedule_id)

    def go_on(self, schedule_id: str) -> RunInfo:
        self.runs.work()
        return schedules.list_runs(self.line.catalog, ScheduleId(schedule_id))[0]

    def write(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.folder / f"{name}.txt").write_text(text)

    def newest(self) -> dict[str, str]:
        """Return the state of the newest version of each document, by source."""
        return {source: states[-1] for source, states in sorted(self.line.states().items())}


@pytest.fixture
def desk(catalog, tmp_path):
    folder = tmp_path / "srv" / "notes"
    folder.mkdir(parents=True)
    allowed = Schedules(sync_roots=(tmp_path / "srv",), backup_roots=(tmp_path,))
    settings = Settings(data_dir=tmp_path / "data", broker_url=NOBODY, schedules=allowed)
    made = Desk(new_line(catalog), folder, settings)
    yield made
    made.runs.close()


def test_a_folder_is_followed_what_is_new_changed_and_gone(desk):
    desk.write(a="one", b="two", c="three")
    followed = desk.add()
    run = desk.run(followed)
    assert (run.state, run.reason) == ("ok", None)
    assert run.progress["added"] == 3
    desk.line.run()
    assert desk.newest() == {f"notes/{name}.txt": "indexed" for name in "abc"}

    desk.write(b="two, changed", d="four")
    (desk.folder / "c.txt").unlink()
    run = desk.run(followed)
    counts = {name: run.progress.get(name) for name in ("added", "updated", "deleted", "unchanged", "left", "skipped")}
    assert counts == {"added": 1, "updated": 1, "deleted": 1, "unchanged": 1, "left": 0, "skipped": 0}
    desk.line.run()
    states = desk.newest()
    assert states == {
        "notes/a.txt": "indexed",
        "notes/b.txt": "indexed",
        "notes/c.txt": "deleted",
        "notes/d.txt": "indexed",
    }
    run = desk.run(followed)
    assert (run.progress["unchanged"], run.progress.get("job_id")) == (3, None)  # there was nothing to do


def test_documents_outside_of_the_prefix_are_nobodys(desk):
    desk.line.submit("elsewhere/x", "notes2/y")
    desk.write(a="one")
    run = desk.run(desk.add(prefix="mine"))
    assert run.state == "ok"
    assert desk.newest() == {"elsewhere/x": "queued", "mine/a.txt": "queued", "notes2/y": "queued"}


def test_a_run_that_would_delete_much_fails_and_changes_nothing_unless_that_was_allowed(desk):
    desk.write(**{f"n{number}": f"text {number}" for number in range(3)})
    careful, bold = desk.add(), desk.add(delete_much=True)
    desk.run(careful)
    before = desk.newest()
    for path in desk.folder.iterdir():
        path.unlink()
    run = desk.run(careful)
    assert run.state == "failed"
    assert "would delete 3 of 3 documents" in run.reason
    assert desk.newest() == before
    assert desk.run(bold).progress["deleted"] == 3
    assert set(desk.newest().values()) == {"deleting"}


def test_a_folder_that_is_away_or_not_allowed_any_more_fails_the_run_and_deletes_nothing(desk, tmp_path):
    desk.write(a="one")
    followed = desk.add(delete_much=True)
    desk.run(followed)
    desk.folder.rename(tmp_path / "srv" / "away")
    run = desk.run(followed)
    assert (run.state, "is no folder on the machine" in run.reason) == ("failed", True)
    desk.folder.symlink_to(tmp_path)  # out of what is allowed
    run = desk.run(followed)
    assert (run.state, "schedules.sync_roots" in run.reason) == ("failed", True)
    assert desk.newest() == {"notes/a.txt": "queued"}


def test_a_link_that_leads_out_of_what_is_allowed_is_skipped_with_the_reason(desk, tmp_path):
    (tmp_path / "secret.txt").write_text("not for this collection")
    desk.write(a="one")
    (desk.folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "srv" / "shared.txt").write_text("for all")
    (desk.folder / "inside.txt").symlink_to(tmp_path / "srv" / "shared.txt")
    run = desk.run(desk.add())
    assert (run.state, run.progress["skipped"]) == ("ok", 1)
    assert "leads out" in run.progress["skipped_files"][0]
    assert desk.newest() == {"notes/a.txt": "queued", "notes/inside.txt": "queued"}


def test_what_cannot_be_read_or_is_too_large_is_skipped_and_its_document_stays(desk):
    small = Settings(**{**desk.settings.model_dump(), "limits": Limits(max_document_bytes=10)})
    desk.runs.close()
    tight = Desk(desk.line, desk.folder, small)
    desk.write(a="one", b="two")
    followed = tight.add()
    tight.run(followed)
    desk.write(a="much more than ten bytes")
    (desk.folder / "b.txt").unlink()
    (desk.folder / "b.txt").symlink_to("nowhere")
    run = tight.run(followed)
    tight.runs.close()
    assert (run.state, run.progress["skipped"], run.progress["spared"]) == ("ok", 2, 1)
    assert desk.newest() == {"notes/a.txt": "queued", "notes/b.txt": "queued"}


def test_a_document_that_failed_is_left_until_its_file_changes(desk):
    desk.write(a="one")
    followed = desk.add()
    desk.run(followed)
    with desk.line.catalog.write() as connection:
        connection.execute(sa.update(versions).values(state="failed"))
    run = desk.run(followed)
    assert (run.state, run.progress["failed_before"], run.progress["added"]) == ("ok", 1, 0)
    desk.write(a="another")
    desk.run(followed)
    assert desk.newest() == {"notes/a.txt": "queued"}


def test_a_worker_that_dies_after_the_documents_were_accepted_is_followed_by_one_that_does_the_rest(desk, monkeypatch):
    desk.write(a="one", b="two")
    followed = desk.add()

    def die(where: str) -> None:
        if where == "accept.after_commit":
            raise SystemExit("killed")

    with monkeypatch.context() as patched:
        patched.setattr("penstock.storage.catalog.engine.hit", die)
        with pytest.raises(SystemExit):
            desk.run(followed)
    desk.write(c="three")
    desk.line.now += 1_000.0
    schedules.take_back_runs(desk.line.catalog, now=desk.line.now)
    run = desk.go_on(followed)
    assert (run.state, run.attempts, run.progress["unchanged"], run.progress["added"]) == ("ok", 2, 2, 1)
    assert len(desk.line.version_rows("id")) == 3


def test_a_process_that_is_told_to_stop_hands_its_run_back_uncounted(desk):
    desk.write(a="one")
    followed = desk.add()
    desk.liveness.stop()
    run = desk.run(followed)
    assert (run.state, run.attempts) == ("waiting", 0)
    assert desk.newest() == {}


def test_the_run_of_a_collection_that_is_deleted_meanwhile_is_lost_and_says_so_to_nobody(desk):
    def delete(work) -> None:
        delete_collection(desk.line.catalog, tenant=TENANT, name=desk.line.collection.name)

    desk.actions["sync"] = delete
    followed = desk.add()
    schedules.run_now(desk.line.catalog, desk.owner, followed, now=desk.line.now)
    desk.runs.work()
    assert schedules.list_runs(desk.line.catalog, followed) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied", "/srv/notes/a"), "/srv/notes/a: permission denied"),
        (ZeroDivisionError("secret text"), "a defect of this program: ZeroDivisionError"),
    ],
)
def test_whatever_goes_wrong_is_an_outcome_with_its_reason(desk, error, reason):
    def fail(_work) -> None:
        raise error

    desk.actions["sync"] = fail
    run = desk.run(desk.add())
    assert run.state == "failed"
    assert run.reason.startswith(reason)
    assert "secret text" not in run.reason


def test_a_run_whose_job_was_cancelled_fails_and_says_so(desk):
    def cancelled(work) -> None:
        ACTIONS["sync"](work)
        cancel_job(desk.line.catalog, tenant=TENANT, job_id=JobId(work.progress["job_id"]), now=desk.line.now)
        desk.write(b="two")
        ACTIONS["sync"](work)

    desk.write(a="one")
    desk.actions["sync"] = cancelled
    run = desk.run(desk.add())
    assert (run.state, "was cancelled" in run.reason) == ("failed", True)


def test_what_expired_leaves_at_the_time_of_a_schedule_and_the_run_tells_how_much(desk):
    line = desk.line
    line.accept([document("a", "text of a", expires_at=line.now + 10.0), document("b", "text of b")])
    line.run()
    line.now += 20.0
    expiring = desk.add("expire")
    assert desk.run(expiring).state == "waiting"
    assert line.expire() == 1
    line.now += 5.0
    run = desk.go_on(expiring)
    assert (run.state, run.progress, run.attempts) == ("ok", {"expired": 1}, 1)
    assert desk.run(expiring).progress == {"expired": 0}
