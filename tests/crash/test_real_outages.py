"""Real roles over a real Valkey while clients submit, replace and remove: killed, stopped, emptied, locked out.

After each of them every accepted document is searchable once, at its newest version. In `make crash` each of them
several times, and with a catalog that is locked for longer than anybody waits for it.
"""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.engine import LOCK_WAIT_S
from penstock.storage.errors import Unavailable
from penstock.storage.ids import JobId
from penstock.storage.intake.removals import remove_documents

from ..role_processes import ROLES, Plant
from ..served_model import differences, text_of

THOROUGH = "PENSTOCK_TEST_ROUNDS" in os.environ
ALL_ROLES = (*ROLES, "express")  # which is sent what is short: here most of it
STOPPED_S = 20.0
KILLS = 5


class Client:
    """Submits, replaces and removes at random, and knows what must be searchable in the end."""

    def __init__(self, plant: Plant, collection: CollectionInfo, rng: random.Random) -> None:
        self.served: dict[str, str] = {}
        self._plant, self._collection, self._rng = plant, collection, rng
        self._jobs: list[JobId] = []
        self._number = 0

    def ask(self) -> None:
        """Ask for something; refused, ask for the same again."""
        self._number += 1
        sources = [f"d{number}" for number in self._rng.sample(range(24), self._rng.randint(1, 8))]
        request = self._removal(sources) if self._rng.random() < 0.25 else self._submission(sources)
        asked = len(self._jobs)
        while len(self._jobs) == asked:
            try:
                self._jobs.append(request())
            except Unavailable:
                time.sleep(0.2)

    def check(self) -> None:
        for job in self._jobs:
            self._plant.wait(self._collection, job)
        assert not differences(self._plant.searchable(self._collection), self.served)

    def _submission(self, sources: list[str]) -> Callable[[], JobId]:
        texts = {source: text_of(source, self._number, sentences=self._rng.choice([2, 40])) for source in sources}
        self.served |= texts
        return lambda: self._plant.submit(self._collection, texts)

    def _removal(self, sources: list[str]) -> Callable[[], JobId]:
        for source in sources:
            self.served.pop(source, None)
        where = {
            "tenant": self._collection.tenant_id,
            "collection_id": self._collection.id,
            "generation_id": self._collection.generation.id,
        }

        def remove() -> JobId:
            job = remove_documents(self._plant.catalog, **where, sources=sources, now=time.time()).job_id
            self._plant.notices.work_ready()
            return job

        return remove


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    plant = Plant(tmp_path_factory.mktemp("plant"), **{"workers.max_attempts": 20})
    plant.start(*ALL_ROLES)
    yield plant
    plant.close()


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("PENSTOCK_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"PENSTOCK_TEST_SEED={seed}")
    return random.Random(seed)


def clients(plant: Plant, rng: random.Random, name: str) -> list[Client]:
    return [Client(plant, plant.collection(f"{name}-{tenant}"), rng) for tenant in ("acme", "other")]


def test_nothing_is_lost_or_doubled_when_roles_are_killed_at_random_times(plant, rng):
    both = clients(plant, rng, "roles")
    for _ in range(5 * KILLS if THOROUGH else KILLS):
        for client in both:
            client.ask()
        time.sleep(rng.uniform(0.0, 1.5))  # a moment by chance, not a synchronisation
        role = rng.choice(ALL_ROLES)
        plant.kill(role)
        plant.start(role)
    for client in both:
        client.check()


def stopped(plant: Plant) -> None:
    with redis.Redis.from_url(plant.url) as client:
        pid = client.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(STOPPED_S)  # what is claimed: so long an absence
    finally:
        os.kill(pid, signal.SIGCONT)


def emptied(plant: Plant) -> None:
    with redis.Redis.from_url(plant.url) as client:
        client.flushall()


TROUBLES: dict[str, Callable[[Plant], None]] = {
    "killed": Plant.restart_server,
    "emptied": emptied,
    "stopped": stopped,
}


@pytest.mark.parametrize("name", TROUBLES)
def test_nothing_is_lost_or_doubled_when_the_queues_server_is(plant, rng, name):
    both = clients(plant, rng, name)
    for _ in range(5 if THOROUGH else 1):
        for client in both * 3:
            client.ask()
        time.sleep(rng.uniform(0.0, 1.0))
        TROUBLES[name](plant)
        for client in both:
            client.ask()
    for client in both:
        client.check()


@contextmanager
def locked(plant: Plant) -> Iterator[None]:
    connection = sqlite3.connect(plant.settings.data_dir / "catalog.sqlite3", isolation_level=None, timeout=30)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.close()


@pytest.mark.skipif(not THOROUGH, reason="takes longer than anybody waits for the lock: `make crash`")
def test_nothing_is_lost_or_doubled_when_another_process_holds_the_catalogs_lock_for_long(plant, rng):
    both = clients(plant, rng, "locked")
    for client in both * 3:
        client.ask()
    time.sleep(rng.uniform(0.0, 1.0))
    with locked(plant):
        time.sleep(LOCK_WAIT_S + 5)  # what is claimed: longer than this
    for client in both:
        client.ask()
        client.check()
