"""A story for the roles of `mortal_roles`, with an end that everybody knows, and what must hold after it."""

import random
from pathlib import Path

from .mortal_roles import MortalRoles
from .served_model import differences, is_whole, text_of

LATER_S = 60.0  # every lease has ended, nothing is garbage yet
OLD = {source: text_of(source, 1) for source in "abc"}
POISON = "\0\1\2" * 500


def make_template(folder: Path) -> Path:
    """Make an installation of two tenants where something is indexed, something was replaced and something is dead."""
    folder.mkdir()
    line = MortalRoles(folder)
    for tenant in ("acme", "other"):
        line.create(tenant)
        line.submit(tenant, {"a": text_of("a", 0), "dead": POISON})
    line.run()
    for tenant in ("acme", "other"):
        line.submit(tenant, OLD)
    line.run()
    line.close()
    return folder


def check(line: MortalRoles, *allowed: dict[str, str]) -> None:
    """Everything is over, and what is searchable is exactly one of ``allowed``; the other tenant noticed nothing."""
    found = line.searchable("acme")
    told = [differences(found, expected) for expected in allowed]
    assert [] in told, told
    assert not differences(line.searchable("other"), OLD)
    for tenant in ("acme", "other"):
        searchable = line.searchable(tenant)
        for source, document in line.listed(tenant).items():
            assert document.state in {"indexed", "failed"}, (source, document.state)
            assert (document.state == "indexed") == (source in searchable), source
            assert document.state == "indexed" or (document.error_code and document.error), source


def check_visible(line: MortalRoles, *versions: dict[str, str]) -> None:
    """Whatever is searchable in the middle of it is whole, at one of these versions."""
    for source, chunks in line.searchable("acme").items():
        assert any(is_whole(chunks, one[source]) for one in versions if source in one), (source, chunks)


def wish(rng: random.Random, number: int) -> dict[str, str | None]:
    """Return texts to submit by source, or None for those to remove; never both."""
    sources = rng.sample("abcdef", rng.randint(1, 3))
    if rng.random() < 0.3:
        return dict.fromkeys(sources)
    return {source: text_of(source, 10 + number, sentences=rng.choice([2, 8])) for source in sources}


def ask(line: MortalRoles, wanted: dict[str, str | None]) -> None:
    """Ask for what `wish` returned. Twice is harmless."""
    if texts := {source: text for source, text in wanted.items() if text is not None}:
        line.submit("acme", texts)
    else:
        line.remove("acme", list(wanted))


def places_in(record: Path) -> dict[str, list[str]]:
    """Return the failpoints that each role passed, as ``name:count``, from a record of `storage.failpoints`."""
    places: dict[str, list[str]] = {"api": []}
    seen: list[str] = []
    role = "api"
    for word in record.read_text().splitlines():
        if word.startswith("# "):
            role = word.removeprefix("# ")
        else:
            seen.append(word)
            places.setdefault(role, []).append(f"{word}:{seen.count(word)}")
    return places
