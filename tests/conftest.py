"""Servers that tests share. Where one cannot be had its tests are skipped; in CI they fail."""

import os
from collections.abc import Iterator

import pytest

from .valkey_server import NoValkey, ValkeyServer


@pytest.fixture(scope="module")
def valkey_server() -> Iterator[ValkeyServer]:
    """A private Valkey that the tests of a module share; whoever stops it starts it again."""
    try:
        server = ValkeyServer()
    except NoValkey as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Valkey server: {reason}")
        pytest.skip(f"no Valkey server: {reason}")
    yield server
    server.close()


@pytest.fixture(scope="module")
def valkey_url(valkey_server: ValkeyServer) -> str:
    """The URL of that server, as redis-py writes it."""
    return valkey_server.url
