"""The Celery application: what of its settings a change must not break."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from penstock.settings.model import Settings, Workers
from penstock.workers import routes
from penstock.workers.app import COLLECT_EVERY_S, HARD_LIMIT_S, SOFT_LIMIT_S, make_app
from penstock.workers.beat import FIRST_TICK_S, CelerySender, Ticks
from penstock.workers.dispatcher import Message
from penstock.workers.liveness import Liveness
from penstock.workers.run import AUTOGROUP, register


def settings(tmp_path, **values) -> Settings:
    return Settings(data_dir=tmp_path, **values)


@pytest.mark.parametrize(
    ("ours", "kombus"),
    [
        ("redis://host:1/2", "redis://host:1/2"),
        ("valkey://host:1/2", "redis://host:1/2"),
        ("valkeys://host:1/2", "rediss://host:1/2"),
        ("unix:///run/v.sock", "redis+socket:///run/v.sock"),
        ("unix:///run/v.sock?db=3", "redis+socket:///run/v.sock?virtual_host=3"),
        ("redis+socket:///run/v.sock?virtual_host=3", "redis+socket:///run/v.sock?virtual_host=3"),
        ("amqp://guest@host//", "amqp://guest@host//"),
    ],
)
def test_every_spelling_of_a_broker_is_one_that_kombu_knows(tmp_path, ours, kombus):
    app = make_app(settings(tmp_path, broker_url=ours, cache_url="redis://cache:1/0"))

    assert app.conf.broker_url == kombus
    with app.connection_for_write() as connection:
        assert connection.transport_cls in {"redis", "rediss", "amqp", "redis+socket"}


def test_without_a_broker_url_the_private_socket_is_used(tmp_path):
    assert make_app(settings(tmp_path)).conf.broker_url == f"redis+socket://{tmp_path}/valkey/valkey.sock"


def test_messages_are_json_and_results_are_nobodys_but_the_search_roles(tmp_path):
    app = make_app(settings(tmp_path))
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.result_backend is None
    assert app.conf.task_ignore_result

    search = make_app(settings(tmp_path), results=True)
    assert search.conf.result_backend == f"redis+socket://{tmp_path}/valkey/valkey.sock"
    assert search.conf.result_expires == 60
    assert not search.conf.worker_send_task_events  # they would show queries in Flower
    assert not search.conf.worker_enable_remote_control  # so would `inspect active`


def test_what_loses_tasks_is_off(tmp_path):
    conf = make_app(settings(tmp_path)).conf
    assert conf.worker_cancel_long_running_tasks_on_connection_loss is False
    assert conf.broker_connection_max_retries is None
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert conf.worker_prefetch_multiplier == 1
    assert conf.broker_transport_options["visibility_timeout"] == conf.visibility_timeout >= 3 * HARD_LIMIT_S
    assert conf.broker_transport_options["socket_timeout"]


def test_only_chunking_is_killed_when_it_takes_long(tmp_path):
    """A merge of millions of chunks takes an hour; killed after five minutes it would never end."""
    app = make_app(settings(tmp_path))
    limits = {}
    for name in (routes.CHUNK, routes.MERGE, routes.COLLECT):
        register(app, name=name, body=lambda: None, liveness=Liveness())
        limits[name] = (app.tasks[name].soft_time_limit, app.tasks[name].time_limit)

    assert limits == {
        routes.CHUNK: (SOFT_LIMIT_S, HARD_LIMIT_S),
        routes.MERGE: (None, None),
        routes.COLLECT: (None, None),
    }
    assert (app.conf.task_soft_time_limit, app.conf.task_time_limit) == (None, None)


def test_ticks_do_not_pile_up_while_nobody_reads_them_and_do_not_wait_for_merges(tmp_path):
    app = make_app(settings(tmp_path))
    app.conf.broker_url = "memory://"
    sender = CelerySender(app)
    sender.send([Message(routes.MERGE, routes.MAINTENANCE_QUEUE, "batch_1")])
    ticks = Ticks(app)
    for _ in range(3):
        ticks.apply_entry(ticks.schedule["collect"])
    assert sender.waiting(routes.COLLECT_QUEUE) == 1
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(routes.COLLECT_QUEUE)
        assert (message.headers["task"], message.headers["expires"]) == (routes.COLLECT, None)
        connection.default_channel.basic_ack(message.delivery_tag)
    ticks.apply_entry(ticks.schedule["collect"])
    assert sender.waiting(routes.COLLECT_QUEUE) == 1


def test_a_tick_is_sent_when_nobody_can_tell_whether_one_waits(tmp_path, monkeypatch):
    app = make_app(settings(tmp_path))
    app.conf.broker_url = "memory://"
    ticks = Ticks(app)
    with monkeypatch.context() as patched:
        patched.setattr(CelerySender, "waiting", lambda *_args: 1 / 0)
        ticks.apply_entry(ticks.schedule["collect"])

    assert CelerySender(app).waiting(routes.COLLECT_QUEUE) > 0


def test_what_is_sent_carries_when_it_ends_and_is_counted_while_it_waits(tmp_path):
    app = make_app(settings(tmp_path))
    app.conf.broker_url = "memory://"
    sender = CelerySender(app)
    sender.send([Message(routes.CHUNK, "chunk", "batch_1", expires_s=600.0), Message(routes.INDEX, "index.0", 0)])

    assert (sender.waiting("chunk"), sender.waiting("index.0")) == (1, 1)
    with app.connection_for_read() as connection:
        ends = {name: connection.default_channel.basic_get(name).headers["expires"] for name in ("chunk", "index.0")}
    remaining = datetime.fromisoformat(ends["chunk"]) - datetime.now(UTC)
    assert timedelta(seconds=500) < remaining <= timedelta(seconds=600)
    assert ends["index.0"] is None


def test_another_broker_gets_no_options_that_only_redis_knows(tmp_path):
    conf = make_app(settings(tmp_path, broker_url="amqp://h//", cache_url="redis://cache:1/0")).conf
    assert "socket_keepalive" not in conf.broker_transport_options
    assert not conf.worker_disable_prefetch


def test_every_task_has_a_queue_and_every_role_reads_its_own(tmp_path):
    app = make_app(settings(tmp_path, workers=Workers(shards=3)))
    queues = {queue.name for queue in app.conf.task_queues}

    assert set(routes.TASK_QUEUES.values()) <= queues
    assert routes.role_queues("index", shards=[0, 2]) == ["index.0", "index.2"]
    assert routes.role_queues("maintenance", shards=[]) == [
        routes.TASK_QUEUES[routes.MERGE],
        routes.TASK_QUEUES[routes.COLLECT],
        routes.TASK_QUEUES[routes.ORDER],
        routes.TASK_QUEUES[routes.RUN],
    ]
    assert {"index.0", "index.1", "index.2"} <= queues
    assert all(
        routes.role_queues(role, shards=[])[0] in queues
        for role in ("chunk", "embed", "express", "search", "maintenance")
    )


def test_the_first_tick_comes_soon_after_the_start_and_the_next_when_its_time_has_come(tmp_path):
    ticks = Ticks(make_app(settings(tmp_path)), lazy=True)
    ticks.setup_schedule()
    collect = ticks.schedule["collect"]

    assert 0 < collect.is_due().next <= FIRST_TICK_S
    assert next(collect).is_due().next > COLLECT_EVERY_S / 2


def test_a_worker_reads_on_when_the_server_did_not_hear_that_a_message_is_done(tmp_path):
    """Else one that holds as many as it may would read nothing any more, until it is started again."""
    with make_app(settings(tmp_path)).connection_for_read() as connection:
        kind = connection.transport.Channel.QoS

    qos = kind(SimpleNamespace(do_restore=False), prefetch_count=1)
    qos._remove_from_indices = lambda _tag: 1 / 0
    for tag, end in (("first", qos.ack), ("second", qos.reject)):
        qos._delivered[tag] = "message"
        assert not qos.can_consume()
        with pytest.raises(ZeroDivisionError):
            end(tag)
        assert qos.can_consume()


def test_bulk_work_gives_way_in_the_whole_machine_where_its_session_is_its_own():
    program = "from penstock.workers.run import AUTOGROUP, give_way; give_way(5); print(AUTOGROUP.read_text())"
    if not AUTOGROUP.exists():
        pytest.skip("this system does not share its processors by session")
    told = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, start_new_session=own
        )
        for own in (True, False)
    ]
    assert told[0].stdout.split()[-1] == "5"
    assert told[1].stdout == AUTOGROUP.read_text() + "\n", "a session that is not its own stays as it is"


def test_roles_that_neither_search_nor_build_do_without_the_compiler_of_kernels():
    """It would take another 60 MB in each of them, and a fifth of the time of their start."""
    program = "import sys; from penstock.workers import beat, chunk, embed, express, run; print('numba' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "False\n"
    )
