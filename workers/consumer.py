"""Celery's consumer for RabbitMQ, without the queues for delays that it would declare beside quorum queues.

Nothing here is sent with a delay: that is in the ledger. Named by the setting ``worker_consumer``.
"""

from typing import ClassVar

from celery.worker.consumer import Consumer

_DELAYS = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


class Undelayed(Consumer):  # type: ignore[misc]  # Celery publishes no types
    """It declares no 28 quorum queues that nobody uses, and warns of none."""

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        """The steps of Celery's consumer, but for that one."""

        default_steps: ClassVar[list[str]] = [step for step in Consumer.Blueprint.default_steps if step != _DELAYS]
