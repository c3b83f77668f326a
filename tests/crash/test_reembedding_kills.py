"""Killed anywhere in the middle of a re-embedding, whoever goes on finishes it, or the collection is as it was.

As in `test_kill_matrix.py` each place is found by playing the story once, and then played again to die there. While it
runs, documents come, change and go.
"""

import pytest

from ..mortal_roles import MODEL, MortalRoles, dies
from ..mortal_story import LATER_S, OLD, check, check_visible, places_in
from ..served_model import text_of

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
OTHER = "hash-384"
CHANGED = {"a": text_of("a", 2), "d": text_of("d", 1)}
AFTER = {"a": CHANGED["a"], "c": OLD["c"], "d": CHANGED["d"]}


def reembed(line: MortalRoles) -> None:
    """Embed the collection again while a document is replaced, one is new, and one is deleted."""
    line.reembed("acme", OTHER)
    line.submit("acme", CHANGED)
    line.remove("acme", ["b"])
    line.run()


def go_back(line: MortalRoles) -> None:
    line.go_back("acme")
    line.submit("acme", CHANGED)
    line.remove("acme", ["b"])
    line.run()


@pytest.fixture(scope="module")
def switched_template(mortal_template, tmp_path_factory):
    """An installation of which one collection was embedded again a moment ago."""
    folder = tmp_path_factory.mktemp("switched") / "data"
    line = MortalRoles(folder.parent / "made")
    line.restore(mortal_template)
    line.reembed("acme", OTHER)
    line.run()
    assert line.serving("acme") == OTHER
    line.close()
    return folder.parent / "made"


@pytest.mark.parametrize("role", ["index", "embed", "maintenance"])
def test_a_role_killed_at_any_place_of_a_reembedding_loses_nothing_and_mixes_nothing(
    mortal_template, line, tmp_path, role
):
    assert not dies(lambda: reembed(line), record=tmp_path / "record")
    places = chosen(places_in(tmp_path / "record")[role])
    for place in places:
        line.restore(mortal_template)
        try:
            assert dies(lambda: reembed(line), at=place)
            assert line.serving("acme") in {MODEL, OTHER}
            check_visible(line, OLD, AFTER)
            line.now += LATER_S
            reembed(line)  # whoever asked got no answer, and asks again
            assert line.serving("acme") == OTHER
            check(line, AFTER)
        except AssertionError as error:
            raise AssertionError(f"killed at {place} of {role}: {error}") from error


def test_a_writer_killed_at_any_place_of_a_rollback_to_the_former_generation_loses_nothing(
    switched_template, line, tmp_path
):
    line.restore(switched_template)
    assert not dies(lambda: go_back(line), record=tmp_path / "record")
    for place in chosen(places_in(tmp_path / "record")["index"]):
        line.restore(switched_template)
        try:
            assert dies(lambda: go_back(line), at=place)
            check_visible(line, OLD, AFTER)
            line.now += LATER_S
            go_back(line)
            assert line.serving("acme") == MODEL
            check(line, AFTER)
        except AssertionError as error:
            raise AssertionError(f"killed at {place}: {error}") from error


def chosen(places: list[str]) -> list[str]:
    """Return the last of each kind of places that are passed for the sake of the re-embedding: it ends with the switch.

    Of others, `test_kill_matrix.py` has all.
    """
    own = ("follow.", "copy.", "begin_round", "plan_slices", "end_round", "open_check", "finish_", "publish")
    last = {place.partition(":")[0]: place for place in places if place.startswith(own)}
    return list(last.values())
