"""The whole queue side with real processes: what is accepted becomes searchable once, whatever dies on the way."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery.exceptions import TaskRevokedError

from penstock.settings import wiring
from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.tables import batches
from penstock.storage.intake.dead import DeadSelection, list_dead
from penstock.storage.intake.revivals import retry_documents
from penstock.workers import routes
from penstock.workers.app import make_app
from penstock.workers.beat import has_express

from ..role_processes import PATIENCE_S, ROLES, Plant, texts

BEGUN = {"embedding", "indexing", "indexed"}  # a look may miss what lasts a moment
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    plant = Plant(tmp_path_factory.mktemp("plant"))
    plant.start()
    yield plant
    plant.close()


def assert_searchable_once(plant: Plant, collection: CollectionInfo, submitted: dict[str, str]) -> None:
    """Every document is found, whole: each of its chunks once, in order, from its first word to its last."""
    found = plant.searchable(collection)
    assert found.keys() == submitted.keys()
    for source, chunks in found.items():
        assert [ordinal for ordinal, _ in chunks] == list(range(len(chunks)))
        assert submitted[source].startswith(chunks[0][1])
        assert submitted[source].endswith(chunks[-1][1])


def progressed(plant: Plant, collection: CollectionInfo, job: str, *, states: set[str], least: int) -> bool:
    documents = plant.job(collection, job).documents
    return sum(documents.get(state, 0) for state in states) >= least


def test_what_is_submitted_becomes_searchable_once(plant):
    collection = plant.collection("whole")
    submitted = texts(60)

    job = plant.wait(collection, plant.submit(collection, submitted))

    assert job.documents == {"indexed": 60}
    assert_searchable_once(plant, collection, submitted)


def test_a_small_document_is_searchable_soon_on_an_idle_system(plant):
    collection = plant.collection("soon")
    plant.wait(collection, plant.submit(collection, texts(1, sentences=2, prefix="warm")))

    job = plant.wait(collection, plant.submit(collection, texts(1, sentences=2)))

    assert job.finished_at - job.created_at < 5.0  # far from what it takes; perf/ measures that


def test_a_few_documents_are_done_by_their_own_worker_while_the_others_stand_still(plant):
    """They might be in the middle of a long batch: a few documents need none of them."""
    collection, presence = plant.collection("few"), wiring.open_presence(plant.settings)
    plant.start("express")
    plant.until(lambda: has_express(presence), "the worker of short batches")
    plant.stop("chunk", "embed")
    job = plant.wait(collection, plant.submit(collection, texts(5, sentences=4)))
    assert job.documents == {"indexed": 5}

    plant.start("chunk", "embed")
    plant.stop("express")
    assert not has_express(presence)
    job = plant.wait(collection, plant.submit(collection, texts(5, sentences=4, prefix="more")))
    assert job.documents == {"indexed": 5}


def test_bad_documents_fail_alone_with_their_reason(plant):
    collection = plant.collection("mixed")
    submitted = texts(3) | {"empty": "", "blank": " \n ", "binary": "\0\1\2" * 500}

    job = plant.wait(collection, plant.submit(collection, submitted))

    assert job.documents == {"indexed": 3, "failed": 3}
    assert_searchable_once(plant, collection, texts(3))


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_lost_or_doubled_when_a_role_is_killed_in_the_middle(plant, role):
    collection = plant.collection(f"killed-{role}")
    submitted = texts(60, sentences=90)
    jobs = [plant.submit(collection, dict(list(submitted.items())[start : start + 10])) for start in range(0, 60, 10)]
    plant.until(lambda: progressed(plant, collection, jobs[0], states={"indexed"}, least=1), "the first document")
    plant.kill(role)
    plant.start(role)

    assert all(plant.wait(collection, job).documents == {"indexed": 10} for job in jobs)
    assert_searchable_once(plant, collection, submitted)


@pytest.mark.parametrize(
    ("role", "places"),
    [
        ("embed", ["embed.embedded", "finish_embedding.after_commit"]),
        ("index", ["publish.files_written", "publish.after_commit"]),
        ("beat", ["take_ready.after_commit"]),
    ],
)
def test_nothing_is_lost_or_doubled_when_a_role_dies_at_the_worst_moment(plant, role, places):
    collection = plant.collection(f"dies-{role}")
    submitted, jobs = {}, []
    plant.kill(role)
    for number, place in enumerate(places):
        plant.start(role, PENSTOCK_FAILPOINT=place)
        some = texts(8, prefix=f"p{number}-")
        submitted |= some
        jobs.append(plant.submit(collection, some))
        plant.until(lambda: plant.processes[role].poll() is not None, f"{role} to die at {place}")
    plant.start(role)

    assert all(plant.wait(collection, job).documents == {"indexed": 8} for job in jobs)
    assert_searchable_once(plant, collection, submitted)


def test_losing_everything_in_redis_loses_nothing(plant):
    collection = plant.collection("flushed")
    submitted = texts(60, sentences=90)
    job = plant.submit(collection, submitted)
    client = redis.Redis.from_url(plant.url)
    for least in (0, 1, 20):
        plant.until(
            lambda least=least: progressed(plant, collection, job, states={"indexed", "embedding"}, least=least), "some"
        )
        client.flushall()
    client.close()

    assert plant.wait(collection, job).documents == {"indexed": 60}
    assert_searchable_once(plant, collection, submitted)


def test_duplicated_and_made_up_messages_change_nothing(plant):
    """Every message goes out many times, at once and later, along with ids of batches that do not exist."""
    collection = plant.collection("doubled")
    submitted = texts(20)
    app = make_app(plant.settings)
    job = plant.submit(collection, submitted)
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(0.05):
            repeat_messages(plant, app)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        assert plant.wait(collection, job).documents == {"indexed": 20}
    finally:
        stop.set()
        thread.join()
    repeat_messages(plant, app)
    after = texts(1, prefix="after")
    plant.wait(collection, plant.submit(collection, after))
    app.close()

    assert_searchable_once(plant, collection, submitted | after)


def repeat_messages(plant: Plant, app) -> None:
    with plant.catalog.read() as connection:
        rows = connection.execute(batches.select().order_by(batches.c.id.desc()).limit(20)).all()
    tasks = {"chunk": routes.CHUNK, "embed": routes.EMBED, "merge": routes.MERGE}
    for row in rows:
        if row.stage in tasks:
            app.send_task(tasks[row.stage], args=[row.id])
    app.send_task(routes.CHUNK, args=["batch_that_never_was"])
    app.send_task(routes.INDEX, args=[0], queue=routes.index_queue(0))


def test_messages_that_come_too_late_are_dropped_without_a_fuss(plant):
    plant.stop("chunk")
    app = make_app(plant.settings)
    for _ in range(20):
        app.send_task(routes.CHUNK, args=["batch_of_long_ago"], expires=0.001)
    said = len(plant.log("chunk").read_text())
    plant.start("chunk")
    collection = plant.collection("late")
    job = plant.wait(collection, plant.submit(collection, texts(2)))
    app.close()

    assert job.documents == {"indexed": 2}
    log = plant.log("chunk").read_text()[said:]
    assert log.count("Discarding revoked task") == 20
    assert not [line for line in log.splitlines() if " error " in line or " warning " in line]


def test_a_document_that_kills_its_worker_fails_alone_and_its_neighbours_are_indexed(plant):
    collection = plant.collection("poison")
    submitted = texts(6) | {"poison": "never mind"}
    plant.stop("chunk")
    plant.start("chunk", PENSTOCK_FAILPOINT="chunk.parse.poison")

    job = plant.wait(collection, plant.submit(collection, submitted))
    plant.stop("chunk")
    plant.start("chunk")

    assert job.documents == {"indexed": 6, "failed": 1}
    assert_searchable_once(plant, collection, texts(6))
    retry_after_a_fix(plant, collection, submitted, stage="chunk")


@pytest.mark.parametrize("role", ["embed", "index"])
def test_a_document_that_kills_the_whole_process_of_its_role_fails_alone_and_is_retried_after_a_fix(plant, role):
    collection = plant.collection(f"poison-{role}")
    submitted = texts(6) | {"poison": "never mind"}
    bug = {"PENSTOCK_FAILPOINT": f"{role}.document.poison"}
    plant.stop(role)
    plant.start(role, **bug)
    job_id = plant.submit(collection, submitted)

    def over() -> bool:
        if plant.processes[role].poll() is not None:
            plant.start(role, **bug)  # as a supervisor does
        return plant.job(collection, job_id).state == "done"

    plant.until(over, "the end of the job")
    plant.stop(role)
    plant.start(role)

    assert plant.job(collection, job_id).documents == {"indexed": 6, "failed": 1}
    assert_searchable_once(plant, collection, texts(6))
    retry_after_a_fix(plant, collection, submitted, stage=role)


def retry_after_a_fix(plant: Plant, collection: CollectionInfo, submitted: dict[str, str], *, stage: str) -> None:
    """Retry what is dead, without sending it again, and find it."""
    place = {"tenant": collection.tenant_id, "collection_id": collection.id}
    (dead,) = list_dead(plant.catalog, **place, selection=DeadSelection(stage=stage), limit=10).documents
    assert (dead.source, dead.error_code) == ("poison", "worker_lost")
    assert dead.attempts in {2, 4}  # alone, and before that in company, unless a slow worker did not come to it
    assert dead.created_at <= dead.first_attempt_at < dead.last_attempt_at < dead.finished_at
    place["generation_id"] = collection.generation.id
    ids = [dead.id]
    retried = retry_documents(plant.catalog, plant.objects, **place, document_ids=ids, now=time.time())
    plant.notices.work_ready()
    assert plant.wait(collection, retried.job_id).documents == {"indexed": 1}
    assert_searchable_once(plant, collection, submitted)


def test_a_restart_of_the_queues_server_is_waited_for_and_loses_nothing(plant):
    collection = plant.collection("restarted")
    submitted = texts(60, sentences=90)
    job = plant.submit(collection, submitted)
    plant.until(lambda: progressed(plant, collection, job, states=BEGUN, least=1), "some work")
    plant.restart_server()  # empty: nothing of it was kept

    assert plant.wait(collection, job).documents == {"indexed": 60}
    assert_searchable_once(plant, collection, submitted)


def test_producers_submit_and_search_by_queue_and_hear_what_is_wrong(plant):
    collection = plant.collection("queued")
    plant.start("search")
    app = make_app(plant.settings, results=True)

    def ask(task: str, **values):
        return app.send_task(task, kwargs={"tenant": "queued", "collection": "docs", **values}).get(timeout=PATIENCE_S)

    submitted = ask(routes.SUBMIT, documents=[{"source": source, "text": text} for source, text in texts(3).items()])
    assert (submitted["accepted"], submitted["unchanged"]) == (3, 0)
    job = plant.wait(collection, submitted["job_id"])
    generation, version = job.token
    found = ask(routes.SEARCH, query=texts(3)["d1"][:80], k=2, min_token=f"{generation}:{version}", explain=True)
    assert sum(segment["rows"] for segment in found["explain"]["segments"]) >= 3
    assert found["hits"][0]["document"]["source"] == "d1"
    assert (len(found["hits"]), found["version"]) == (2, version)

    again = ask(routes.SUBMIT, documents=[{"source": source, "text": text} for source, text in texts(3).items()])
    assert (again["accepted"], again["unchanged"]) == (0, 3)
    assert ask(routes.SEARCH, query="x", filter="year>")["error"]["code"] == "invalid_filter"
    assert ask(routes.SEARCH, query="x", tenant="killed-embed", collection="nope")["error"]["code"] == "not_found"
    assert ask(routes.SUBMIT, documents=[])["error"]["code"] == "invalid_request"
    assert plant.stop("search") == {"search": 0}
    app.close()


def test_the_example_for_producers_works_as_it_stands(plant):
    """Nothing of Penstock is imported there: a producer has Celery, and the two names."""
    [example] = re.findall(r"```python\n(.*?)```", (DOCS / "queue.md").read_text(), re.DOTALL)
    example = re.sub(r'SERVER = ".*"', f'SERVER = "{plant.url}"', example)
    plant.collection("default")
    plant.start("search")

    def said() -> str:
        command = [sys.executable, "-c", example]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=plant.folder).stdout

    first, found = said().splitlines()
    assert first.startswith("1 accepted, 0 unchanged, in job_")
    assert found.endswith("  pear  Prune pear trees in late winter.")
    assert said().startswith("0 accepted, 1 unchanged")
    assert plant.stop("search") == {"search": 0}


def test_a_question_that_was_read_too_late_is_told_to_its_asker(plant):
    app = make_app(plant.settings, results=True)
    late = app.send_task(routes.SEARCH, kwargs={}, expires=0.01)
    plant.start("search")

    with pytest.raises(TaskRevokedError):
        late.get(timeout=PATIENCE_S)
    assert plant.stop("search") == {"search": 0}
    app.close()


def test_roles_stop_when_told_hand_back_their_work_and_leave_no_files_behind(plant):
    collection = plant.collection("stopped")
    submitted = texts(60, sentences=90)
    job = plant.submit(collection, submitted)
    plant.until(lambda: progressed(plant, collection, job, states=BEGUN, least=1), "some work")

    assert plant.stop(*ROLES) == dict.fromkeys(ROLES, 0)

    plant.start()
    assert plant.wait(collection, job).documents == {"indexed": 60}
    assert_searchable_once(plant, collection, submitted)
    beside = {path.name for path in plant.folder.iterdir()} - {f"{role}.log" for role in plant.processes}
    assert beside == {"data", "valkey"}


def test_the_logs_name_batches_and_never_quote_a_document(plant):
    logs = {role: plant.log(role).read_text() for role in ROLES}

    assert "batch=batch_" in logs["chunk"]
    assert "Published" in logs["index"]
    for log in logs.values():
        assert "turbine" not in log
        assert "Traceback (" not in log
