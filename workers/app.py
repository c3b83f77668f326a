"""The Celery application, made from settings. The ledger owns the work; a message is a hint that carries an id.

Evidence for the comments marked (measured): Celery 5.7.0, kombu 5.7.0, Valkey 9.1. Importing this module does nothing.
"""

from typing import Any

from celery import Celery
from celery.schedules import schedule

from penstock.settings import wiring
from penstock.settings.model import Settings

from . import routes
from .acknowledging import mend_acknowledging

SOFT_LIMIT_S = 240.0  # a whole chunk batch; one document's own limit is limits.parse_timeout_s
HARD_LIMIT_S = 300.0
# Four hard limits: a message is redelivered only when its worker is surely gone. A merge may take longer; whoever gets
# its message then finds the batch claimed.
VISIBILITY_TIMEOUT_S = 1200
RESULT_EXPIRES_S = 60
COLLECT_EVERY_S = 300.0
ORDER_EVERY_S = 30.0
KEY_PREFIX = "penstock:celery:"


def make_app(settings: Settings, *, results: bool = False) -> Celery:
    """Return the application. ``results``: with a result backend, for the search role and for those who call it.

    Connects to nothing. Tasks are registered by the role that runs them; others send them by name.
    """
    app = Celery("penstock", set_as_current=False)
    app.conf.update(_queue(settings) | _delivery() | _processes() | _schedule())
    if settings_use_redis(settings):
        mend_acknowledging()
        app.conf.update(_redis())
    else:
        app.conf.update(_rabbitmq())
    if results:
        app.conf.update(_results(settings))
    return app


def settings_use_redis(settings: Settings) -> bool:
    """Return whether the broker is a Redis or Valkey, which has options that others would refuse."""
    return wiring.broker_url(settings).startswith("redis")


def _queue(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": wiring.broker_url(settings),
        "result_backend": None,  # the ledger is the result; with a backend on the broker's server 5.7.0 can lose tasks
        "task_ignore_result": True,  # no tombstones even if someone adds a backend
        "task_serializer": "json",  # no pickle; a body carries ids only, never a tenant's text
        "accept_content": ["json"],
        "task_queues": routes.all_queues(settings.workers.shards, quorum=not settings_use_redis(settings)),
        "task_routes": {name: {"queue": queue} for name, queue in routes.TASK_QUEUES.items()},
        "task_default_queue": routes.MAINTENANCE_QUEUE,
        "task_create_missing_queues": False,  # a typo must not create a queue that nobody reads
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # outlive any outage; the default gives up after 100 tries
        "broker_pool_limit": 10,
        "broker_pool_acquire_timeout": 5,
    }


def _delivery() -> dict[str, Any]:
    return {
        "task_acks_late": True,  # the message survives the child that runs it
        "task_reject_on_worker_lost": True,  # a killed child's message comes back at once; the ledger caps attempts
        "task_acks_on_failure": True,  # failures go to the ledger; a requeue here would be an endless loop
        "task_acks_on_timeout": True,  # as above
        "task_track_started": False,
        # For chunk alone: a merge takes as long as it takes, and its claim is renewed while its process lives. Only
        # prefork can kill a task.
        "task_annotations": {routes.CHUNK: {"soft_time_limit": SOFT_LIMIT_S, "time_limit": HARD_LIMIT_S}},
        "task_publish_retry": True,
        "task_publish_retry_policy": {  # give up fast: what stays unsent is sent again from the ledger
            "max_retries": 3,
            "interval_start": 0.1,
            "interval_step": 0.3,
            "interval_max": 1,
        },
    }


def _processes() -> dict[str, Any]:
    return {
        "worker_prefetch_multiplier": 1,  # hold only what runs
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # True loses tasks in 5.7.0 (measured 2 of 3)
        # A soft shutdown sleeps its whole length even when idle (5.7.0), so SIGTERM stays warm and batches are handed
        # back by the roles themselves; only SIGQUIT waits, then drops what runs.
        "worker_soft_shutdown_timeout": 5,
        "worker_enable_soft_shutdown_on_idle": False,
        "worker_max_tasks_per_child": 500,  # parsers and tokenizers leak
        "worker_pool_start_method": "fork",  # children inherit the settings; a spawned one would import an application
        "worker_eta_task_limit": 200,  # nobody sends countdown tasks here; if someone does, they cannot fill memory
        "worker_send_task_events": True,  # for Flower
        "task_send_sent_event": False,  # doubles the events and says nothing that the ledger does not know
        "worker_hijack_root_logger": False,  # logs.py owns it
        "worker_redirect_stdouts": False,
        "timezone": "UTC",
        "enable_utc": True,
    }


def _schedule() -> dict[str, Any]:
    # It does not expire: while a tick waits, for a merge perhaps, beat sends no other.
    tick = {"task": routes.COLLECT, "schedule": schedule(COLLECT_EVERY_S)}
    orders = {"task": routes.ORDER, "schedule": schedule(ORDER_EVERY_S)}
    return {
        "beat_schedule": {"collect": tick, "order": orders},  # ticks are idempotent, so two beats are harmless
        "beat_max_loop_interval": 5,
    }


def _redis() -> dict[str, Any]:
    options = {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "unacked_restore_interval": 5,  # sweep every 5 s instead of every 100 s
        "unacked_restore_throttle": 1,
        "unacked_restore_limit": 500,
        "socket_timeout": 10,  # without one a publish can hang for ever on a half-open socket
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 15,
        "global_keyprefix": KEY_PREFIX,  # producers of search and submit messages need it too
        "queue_order_strategy": "round_robin",
        "client_name": "penstock",
    }
    return {
        "broker_transport_options": options,
        "visibility_timeout": VISIBILITY_TIMEOUT_S,  # Celery wants the same value in both places
        "worker_disable_prefetch": True,  # only Redis knows it: fetch nothing while every slot is taken
    }


def _rabbitmq() -> dict[str, Any]:
    # Its queues are quorum queues (routes.py): Celery sees that, and asks for no prefetch count of a whole channel.
    return {
        "broker_transport_options": {"confirm_publish": True},  # sent is what a majority of the nodes has written
        "worker_consumer": "penstock.workers.consumer:Undelayed",
        "worker_disable_prefetch": False,
    }


def _results(settings: Settings) -> dict[str, Any]:
    return {
        "result_backend": wiring.result_url(settings),
        "result_expires": RESULT_EXPIRES_S,  # an answer nobody fetched within a minute is nobody's
        "result_serializer": "json",
        "result_backend_transport_options": {"global_keyprefix": KEY_PREFIX},
        "task_ignore_result": False,
        "worker_send_task_events": False,  # events and remote control would show queries, a tenant's text, in Flower
        "worker_enable_remote_control": False,
    }
