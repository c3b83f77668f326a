"""A broker that repeats, shuffles, delays and loses messages: the end is the same as with a good one.

The queue only carries hints, so nothing that happens to them may change what is searchable in the end.
"""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from penstock.workers.app import make_app
from penstock.workers.beat import CelerySender
from penstock.workers.dispatcher import Dispatcher, Message
from penstock.workers.liveness import Liveness

from ..mortal_roles import Queue
from ..mortal_story import OLD, ask, check, wish
from ..role_processes import Plant
from ..served_model import differences, text_of

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

ROUNDS = 12


class BadQueue(Queue):
    """Gives messages in any order, some of them again and again, some never."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._old: list[Message] = []

    def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if self._rng.random() < 0.75:  # else it is lost
                self.messages += [message] * self._rng.choice([1, 1, 2, 3])
            if self._rng.random() < 0.2:
                raise ConnectionError("the broker went away in the middle of it")

    def take(self) -> Message | None:
        if self._old and self._rng.random() < 0.3:
            return self._rng.choice(self._old)  # of long ago
        if not self.messages or self._rng.random() < 0.2:
            return None  # late
        self._old.append(self.messages.pop(self._rng.randrange(len(self.messages))))
        return self._old[-1]


def seeds(count: int) -> list[int]:
    if given := os.environ.get("PENSTOCK_TEST_SEED"):
        return [int(given)]
    return [random.SystemRandom().randrange(2**32) for _ in range(count)]


def test_messages_repeated_shuffled_late_and_lost_end_as_those_of_a_good_broker(line, mortal_template):
    for seed in seeds(int(os.environ.get("PENSTOCK_TEST_ROUNDS", str(ROUNDS)))):
        print(f"PENSTOCK_TEST_SEED={seed}")
        line.restore(mortal_template)
        rng = random.Random(seed)
        line.queue = BadQueue(rng)
        served = dict(OLD)
        try:
            for number in range(4):
                wanted = wish(rng, number)
                ask(line, wanted)
                served = {source: text for source, text in (served | wanted).items() if text is not None}
                if rng.random() < 0.5:
                    line.run(rounds=1_000)
            line.run(rounds=1_000)
            check(line, served)
        except AssertionError as error:
            raise AssertionError(f"with PENSTOCK_TEST_SEED={seed}: {error}") from error


class BadSender(CelerySender):
    """What a dispatcher sends through it arrives at the real queue twice, late, in another order, or not at all."""

    def __init__(self, app: object, rng: random.Random) -> None:
        super().__init__(app)
        self._rng = rng
        self._late: list[Message] = []

    def send(self, messages: Sequence[Message]) -> None:
        waiting = [*self._late, *messages]
        self._rng.shuffle(waiting)
        self._late = [message for message in waiting if self._rng.random() < 0.2]
        now = [message for message in waiting if self._rng.random() < 0.8]
        super().send([message for message in now for _ in range(self._rng.choice([1, 2, 4]))])


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    """The roles that work, without the one that sends."""
    plant = Plant(tmp_path, **{"workers.chunk_processes": 2, "workers.max_attempts": 5})
    plant.start("chunk", "embed", "index")
    yield plant
    plant.close()


@contextmanager
def sending_badly(plant: Plant, rng: random.Random) -> Iterator[None]:
    """Run a dispatcher with a bad sender in a thread, told of work as the role beat is."""
    app, stop, liveness = make_app(plant.settings), Event(), Liveness()
    dispatcher = Dispatcher(plant.catalog, BadSender(app, rng), workers=plant.settings.workers, liveness=liveness)
    heard = {"work_ready": dispatcher.wake}
    threads = [
        Thread(target=dispatcher.run, args=[stop]),
        Thread(target=plant.notices.listen, args=[heard, stop]),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        dispatcher.wake()
        for thread in threads:
            thread.join()
        app.close()


def test_workers_of_a_real_queue_that_gets_messages_twice_late_or_never_index_everything_once(plant):
    [seed] = seeds(1)
    print(f"PENSTOCK_TEST_SEED={seed}")
    collection = plant.collection("acme")
    names = [f"d{number}" for number in range(24)]
    served = {name: text_of(name, 1) for name in names}
    newer = {name: text_of(name, 2) for name in names[::3]}

    with sending_badly(plant, random.Random(seed)):
        jobs = [plant.submit(collection, {name: served[name] for name in names[k::4]}) for k in range(4)]
        jobs.append(plant.submit(collection, newer))
        for job in jobs:
            plant.wait(collection, job)

    assert not differences(plant.searchable(collection), served | newer)
