"""Mends how kombu's Redis transport (5.7.0) takes a failed acknowledgement.

When the server does not answer, the message stays among those the worker holds, though the failure is only logged: a
worker that holds as many as it may then reads nothing any more, until it is started again (measured: Valkey stopped
for 20 s, prefetch 1). Here it counts as acknowledged. The server gives it out again after the visibility timeout, and
whoever gets it finds the batch claimed or done. Importing this module does nothing.
"""

from typing import Any

from kombu.transport import redis


class ForgettingQoS(redis.QoS):
    """Lets go of a message also when the server did not hear of it."""

    def ack(self, delivery_tag: str) -> None:
        self._end(super().ack, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self._end(super().reject, delivery_tag, requeue=requeue)

    def _end(self, tell: Any, delivery_tag: str, **options: Any) -> None:
        try:
            tell(delivery_tag, **options)
        except BaseException:
            self._quick_ack(delivery_tag)
            raise


def mend_acknowledging() -> None:
    """Make all Redis connections of this process so. Twice is harmless."""
    redis.Channel.QoS = ForgettingQoS
