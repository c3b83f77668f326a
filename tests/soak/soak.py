"""One soak: starts an installation, lets tenants and trouble loose on it, ends them, and compares everything."""

import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "perf"))  # as pytest does, when this is run by itself

from installation import Installation

from penstock.client import Chunking

from .traffic import COLLECTION, Tenant
from .trouble import Trouble, wait_until

SETTINGS = {
    "EMBEDDING__MODEL": "hash",
    "WORKERS__LEASE_S": "5",
    "WORKERS__RESEND_AFTER_S": "5",
    "WORKERS__MAX_ATTEMPTS": "20",  # no document kills its worker here
}
EVERY_S = (2.0, 7.0)
SETTLE_S = 240.0


class SoakFailed(Exception):
    """Raised with everything that was wrong."""


class Soak:
    """``say`` is told what is done, as it is done."""

    def __init__(self, folder: Path, *, seed: int, tenants: int, say: Callable[[str], None], sources: int = 12) -> None:
        self._rng = random.Random(seed)
        self._names = [f"tenant-{number}" for number in range(tenants)]
        self._sources = sources
        self._say = say
        self._installation = Installation(folder / "data", settings=SETTINGS)

    def run(self, *, seconds: float, every_s: tuple[float, float] = EVERY_S) -> str:
        """Return what was done. Raises SoakFailed."""
        with self._installation:
            tenants = [self._tenant(name) for name in self._names]
            try:
                kills = self._shake(tenants, seconds=seconds, every_s=every_s)
                self._settle(tenants)
                self._compare(tenants)
            finally:
                for tenant in tenants:
                    tenant.close()
        done = sum((tenant.done for tenant in tenants), Counter[str]())
        return (
            f"Nothing was wrong: {kills} times trouble, {', '.join(f'{n} {what}' for what, n in sorted(done.items()))}"
        )

    def _tenant(self, name: str) -> Tenant:
        with self._installation.client() as client:
            client.create_tenant(name)
        with self._installation.client(name) as client:
            client.create_collection(COLLECTION, chunking=Chunking(size_tokens=128, overlap_tokens=16))
        rng = random.Random(self._rng.random())
        return Tenant(name, connect=self._installation.client, rng=rng, sources=self._sources)

    def _shake(self, tenants: list[Tenant], *, seconds: float, every_s: tuple[float, float]) -> int:
        stop, failed = Event(), list[BaseException]()
        trouble = Trouble(
            self._installation.supervisor_pid,
            socket=self._installation.data_dir / "valkey" / "valkey.sock",
            rng=random.Random(self._rng.random()),
            say=self._say,
            stop=stop,
        )

        def guarded(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 a thread that dies must end the soak
                failed.append(error)
                stop.set()

        works: list[Callable[[], None]] = [lambda: trouble.run(every_s=every_s)]
        for tenant in tenants:
            works += [lambda one=tenant: one.ask(stop), lambda one=tenant: one.look(stop)]  # type: ignore[misc]
        threads = [Thread(target=guarded, args=[work]) for work in works]
        for thread in threads:
            thread.start()
        wait_until(lambda: stop.is_set() or any(one.wrong for one in tenants), timeout_s=seconds)
        stop.set()
        for thread in threads:
            thread.join()
        if failed:
            raise SoakFailed(f"{failed[0]!r}\n{self._installation.tail()}") from failed[0]
        self._fail_if([told for one in tenants for told in one.wrong])
        return trouble.count

    def _settle(self, tenants: list[Tenant]) -> None:
        self._say("no more trouble")
        if not wait_until(lambda: all(one.settled() for one in tenants), timeout_s=SETTLE_S, every_s=1.0):
            self._fail_if([f"jobs are still running {SETTLE_S:g} s after the last trouble"])

    def _compare(self, tenants: list[Tenant]) -> None:
        for tenant in tenants:
            tenant.model.all_done()
        wrong = [told for one in tenants for told in [*one.compare(promised=True), *one.unexplained()]]
        self._fail_if(wrong)
        examined = self._installation.penstock("doctor", timeout_s=300)
        if examined.returncode != 0:
            self._fail_if([f"the doctor found something:\n{examined.stdout}{examined.stderr}"])

    def _fail_if(self, wrong: list[str]) -> None:
        if wrong:
            raise SoakFailed("\n".join([*wrong[:20], f"{len(wrong)} things were wrong", self._installation.tail(60)]))
