"""The same roles with RabbitMQ as the queue, chosen by settings alone. A server is started, or the one of
PENSTOCK_TEST_AMQP_URL used; where there is none the tests are skipped."""

import os
import random
from collections.abc import Iterator

import pytest
from amqp.exceptions import NotFound, PreconditionFailed
from kombu import Connection

from penstock.workers import routes
from penstock.workers.app import make_app
from penstock.workers.beat import CelerySender
from penstock.workers.dispatcher import Message

from ..rabbitmq_server import NoRabbitMQ, RabbitMQServer
from ..role_processes import PATIENCE_S, ROLES, Plant
from ..served_model import differences, text_of


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQServer | None]:
    """A private server, or None where another is given."""
    if "PENSTOCK_TEST_AMQP_URL" in os.environ:
        yield None
        return
    try:
        server = RabbitMQServer()
    except NoRabbitMQ as reason:
        pytest.skip(f"no RabbitMQ here: {reason}")
    yield server
    server.close()


@pytest.fixture(scope="module")
def plant(rabbitmq: RabbitMQServer | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    url = rabbitmq.url if rabbitmq else os.environ["PENSTOCK_TEST_AMQP_URL"]
    plant = Plant(tmp_path_factory.mktemp("plant"), broker_url=url)
    plant.start(*ROLES, "express")
    yield plant
    plant.close()


def documents(prefix: str, count: int = 12, *, version: int = 1, sentences: int = 30) -> dict[str, str]:
    names = [f"{prefix}{number}" for number in range(count)]
    return {name: text_of(name, version, sentences=sentences) for name in names}


def test_what_is_submitted_replaced_and_removed_is_searchable_once(plant):
    collection = plant.collection("whole")
    first, second = documents("d"), documents("d", 4, version=2)

    plant.wait(collection, plant.submit(collection, first))
    plant.wait(collection, plant.submit(collection, second))

    assert not differences(plant.searchable(collection), first | second)


def test_its_queues_are_quorum_queues_but_for_that_of_questions(plant):
    app = make_app(plant.settings)
    with Connection(plant.settings.broker_url.get_secret_value()) as connection:
        for name in [queue.name for queue in app.conf.task_queues]:
            channel = connection.channel()
            if name == routes.SEARCH_QUEUE:
                routes.queue(name)(channel).queue_declare()
                continue
            plant.until(lambda name=name: is_declared(connection, name), f"the queue {name}")
            with pytest.raises(PreconditionFailed, match="quorum"):
                routes.queue(name)(channel).queue_declare()
    app.close()


def is_declared(connection: Connection, name: str) -> bool:
    try:
        connection.channel().queue_declare(name, passive=True)
    except NotFound:
        return False
    return True


def test_no_queue_is_declared_that_nobody_uses(plant):
    with Connection(plant.settings.broker_url.get_secret_value()) as connection:
        channel = connection.channel()
        with pytest.raises(connection.channel_errors, match="celery_delayed"):
            channel.queue_declare("celery_delayed_0", passive=True)


def test_the_dispatcher_counts_what_waits(plant):
    plant.stop("chunk")
    app = make_app(plant.settings)
    sender = CelerySender(app)
    before = sender.waiting("chunk")
    sender.send([Message(routes.CHUNK, "chunk", f"batch_{number}", expires_s=600.0) for number in range(3)])

    plant.until(lambda: sender.waiting("chunk") == before + 3, "three messages to wait")
    plant.start("chunk")
    plant.until(lambda: sender.waiting("chunk") == 0, "the messages to be taken")
    app.close()


@pytest.mark.parametrize("role", ["chunk", "embed", "index", "beat"])
def test_nothing_is_lost_or_doubled_when_a_role_is_killed_in_the_middle(plant, role):
    collection = plant.collection(f"killed-{role}")
    submitted = documents("d", 30, sentences=60)
    names = list(submitted)
    jobs = [plant.submit(collection, {name: submitted[name] for name in names[part::3]}) for part in range(3)]
    plant.until(lambda: bool(plant.searchable(collection)), "the first document")
    plant.kill(role)
    plant.start(role)

    for job in jobs:
        assert plant.wait(collection, job).documents == {"indexed": 10}
    assert not differences(plant.searchable(collection), submitted)


def test_a_restart_of_the_server_is_waited_for_and_loses_nothing(plant, rabbitmq):
    if rabbitmq is None:
        pytest.skip("a server that others may use is not restarted")
    collection = plant.collection("restarted")
    submitted = documents("d", 30, sentences=60)
    job = plant.submit(collection, submitted)
    seen = random.choice(["embedding", "indexing", "indexed"])
    plant.until(lambda: not {seen, "indexed"}.isdisjoint(plant.job(collection, job).documents), f"{seen} documents")
    rabbitmq.stop()
    late = plant.submit(collection, documents("late"))
    rabbitmq.start()

    assert plant.wait(collection, job).documents == {"indexed": 30}
    assert plant.wait(collection, late).documents == {"indexed": 12}
    assert not differences(plant.searchable(collection), submitted | documents("late"))


def test_questions_are_answered_over_it(plant):
    collection = plant.collection("asked")
    plant.wait(collection, plant.submit(collection, documents("d")))
    plant.start("search")
    app = make_app(plant.settings, results=True)
    asked = {"tenant": "asked", "collection": "docs", "query": documents("d")["d3"][:60], "k": 1}

    found = app.send_task(routes.SEARCH, kwargs=asked).get(timeout=PATIENCE_S)

    assert [hit["document"]["source"] for hit in found["hits"]] == ["d3"]
    app.close()
    assert plant.stop("search") == {"search": 0}


def test_roles_stop_when_told(plant):
    assert plant.stop(*ROLES) == dict.fromkeys(ROLES, 0)
    for role in ROLES:
        log = plant.log(role).read_text()
        assert "Traceback (" not in log, log
        assert "direct exchange" not in log
    plant.start(*ROLES)  # the order of tests is nobody's: one may follow
