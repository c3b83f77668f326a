"""A time limit on a piece of work in a process's main thread, by SIGALRM."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Alarm:
    """Interrupts Python code that takes too long. C code hears it when it returns; Celery's hard limit ends that."""

    def __init__(self) -> None:
        signal.signal(signal.SIGALRM, _ring)

    @contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        """Raise TimeoutError inside the block once ``seconds`` have passed."""
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _ring(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError("the alarm rang")
