"""Killed anywhere, whoever goes on finishes: each accepted document is searchable once, at its newest version, or dead.

Every place is meant: a story is played once to see which failpoints it passes, before and after each commit of each
role among them, then again for each of them, with a process that dies there. A transaction that is new is found by
itself. The same with catalogs that are locked and disks that are full is in `test_outages.py`, with real processes in
`test_real_outages.py`.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ..mortal_roles import MortalRoles, dies
from ..mortal_story import LATER_S, OLD, POISON, ask, check, check_visible, places_in, wish
from ..served_model import text_of

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@dataclass(frozen=True)
class Operation:
    """What a client asks for, and what must be searchable after it."""

    ask: Callable[[MortalRoles], object]
    after: dict[str, str]
    works: Callable[[MortalRoles], object] = MortalRoles.run


def collect_much_later(line: MortalRoles) -> None:
    line.now += 10 * 24 * 3600.0
    line.collect()


def run_with_express(line: MortalRoles) -> None:
    """Let the role that takes short batches do them. Whoever goes on after its death is without it."""
    line.express = True
    line.run()


NEW = {source: text_of(source, 1) for source in "de"}
NEWER = {source: text_of(source, 2) for source in "ab"}
FEW = {"a": NEWER["a"], "d": NEW["d"]}
OPERATIONS = {
    "submit": Operation(lambda line: line.submit("acme", NEW | {"bad": POISON}), OLD | NEW),
    "replace": Operation(lambda line: line.submit("acme", NEWER), OLD | NEWER),
    "few": Operation(lambda line: line.submit("acme", FEW), OLD | FEW, run_with_express),
    "delete": Operation(lambda line: line.remove("acme", ["a"]), {source: OLD[source] for source in "bc"}),
    # What is left is so little of its segment that this is written anew, by maintenance, and swapped in.
    "delete most": Operation(lambda line: line.remove("acme", ["a", "b"]), {"c": OLD["c"]}),
    # What is dead in the template is as bad as ever: it dies once more, or is given up.
    "retry": Operation(lambda line: line.retry("acme", ["dead"]), OLD),
    "drop": Operation(lambda line: line.drop("acme", ["dead"]), OLD),
    "collect": Operation(lambda line: None, OLD, collect_much_later),
}
ROLES_OF = {
    "submit": ("api", "beat", "chunk", "embed", "index"),
    "replace": ("api", "beat", "chunk", "embed", "index"),
    "few": ("express",),
    "delete": ("api", "beat", "index"),
    "delete most": ("api", "beat", "index", "maintenance"),
    "retry": ("api", "beat", "chunk"),
    "drop": ("api",),
    "collect": ("maintenance",),
}
PAIRS = [(operation, role) for operation, roles in ROLES_OF.items() for role in roles]


@pytest.mark.parametrize(("name", "role"), PAIRS)
def test_a_role_killed_at_any_place_loses_nothing_and_doubles_nothing(mortal_template, line, tmp_path, name, role):
    operation = OPERATIONS[name]

    def story() -> None:
        operation.ask(line)
        operation.works(line)

    assert not dies(story, record=tmp_path / "record")
    places = places_in(tmp_path / "record").get(role, [])
    assert {"before_commit", "after_commit"} <= {place.partition(".")[2].partition(":")[0] for place in places}
    for place in places:
        line.restore(mortal_template)
        try:
            if not dies(story, at=place):
                line.restore(mortal_template)
                assert not dies(story, record=tmp_path / place)
                assert place not in places_in(tmp_path / place).get(role, [])  # a lease that a slow run had to renew
                continue
            check_visible(line, OLD, operation.after)
            line.now += LATER_S
            line.run()
            check(line, operation.after, *([OLD] if role == "api" else []))  # who got no answer knows neither
            operation.ask(line)  # and asks again
            line.run()
            check(line, operation.after)
        except AssertionError as error:
            raise AssertionError(f"killed at {place} of {role}: {error}") from error


def rounds() -> list[int]:
    """Return the seeds of the random rounds: `make crash ROUNDS=…` chooses how many, PENSTOCK_TEST_SEED repeats one."""
    if given := os.environ.get("PENSTOCK_TEST_SEED"):
        return [int(given)]
    return [random.SystemRandom().randrange(2**32) for _ in range(int(os.environ.get("PENSTOCK_TEST_ROUNDS", "3")))]


def test_killed_again_and_again_at_random_places_between_random_requests(mortal_template, line):
    for seed in rounds():
        print(f"PENSTOCK_TEST_SEED={seed}")
        line.restore(mortal_template)
        try:
            play(line, random.Random(seed))
        except AssertionError as error:
            raise AssertionError(f"with PENSTOCK_TEST_SEED={seed}: {error}") from error


def play(line: MortalRoles, rng: random.Random) -> None:
    """Ask for this and that in processes that die; what was answered counts, the last request is asked for again."""
    answered = line.folder / "answered"
    served, asked = dict(OLD), 0
    for _ in range(6):
        wishes = [wish(rng, asked + number) for number in range(rng.randint(1, 4))]
        line.express = rng.random() < 0.5
        answered.write_text("")

        def story(wishes: list[dict[str, str | None]] = wishes) -> None:
            for some in wishes:
                ask(line, some)
                with answered.open("a") as file:
                    file.write("y")
            line.run()

        dies(story, at=f"*:{rng.randint(1, 60)}")
        for some in wishes[len(answered.read_text()) :]:
            ask(line, some)
        for some in wishes:
            served = {source: text for source, text in (served | some).items() if text is not None}
        asked += len(wishes)
        line.now += rng.choice([0.5, LATER_S])
    line.run()
    check(line, served)
