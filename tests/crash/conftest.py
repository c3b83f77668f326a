"""A line of roles over a copy of one installation that is made once for a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..mortal_roles import MortalRoles
from ..mortal_story import make_template


@pytest.fixture(scope="module")
def mortal_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template") / "data")


@pytest.fixture
def line(mortal_template: Path, tmp_path: Path) -> Iterator[MortalRoles]:
    (tmp_path / "line").mkdir()
    line = MortalRoles(tmp_path / "line")
    line.restore(mortal_template)
    yield line
    line.close()
