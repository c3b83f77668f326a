"""Fixtures that start a whole Penstock, as a user would."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from installation import Installation


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Callable[..., Installation]]:
    """Return a function that starts an installation with settings; all are stopped at the end."""
    started: list[Installation] = []

    def start(**settings: str) -> Installation:
        installation = Installation(tmp_path / f"data-{len(started)}", settings=settings)
        started.append(installation)
        installation.start()
        return installation

    yield start
    for installation in started:
        installation.stop()
