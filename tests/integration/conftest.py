"""What several tests of the doctor share."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..examined_installation import Installation, copied, make_installation


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation that nobody touches."""
    folder = tmp_path_factory.mktemp("template") / "data"
    folder.mkdir()
    make_installation(folder)
    return folder


@pytest.fixture
def installation(template: Path, tmp_path: Path) -> Iterator[Installation]:
    """A copy of it, to be damaged."""
    made = copied(template, tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def rng() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)
