"""Servers that tests share. Where one cannot be had its tests are skipped; in CI they fail."""

import importlib.util
import os
from collections.abc import Generator, Iterator

import fakeredis
import pytest

from .embedding_endpoint import Endpoint
from .postgres_server import NoServer, PostgresServer
from .s3_server import NoS3, S3Server
from .scratch import work_in_memory
from .shared_statements import share_compiled_statements
from .valkey_server import NoValkey, ValkeyServer

# What runs lines that others run too is not measured: without the tracer it takes about two thirds of the time.
UNMEASURED = ("crash", "e2e")  # folders
UNMEASURED_TWINS = ("postgresql",)  # parameters: the same test is measured on SQLite
UNMEASURED_FIXTURES = ("plant",)  # processes of every role: tests of one role in this process are measured


work_in_memory()
share_compiled_statements()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = set(item.name.rstrip("]").partition("[")[2].split("-"))
        fixtures = getattr(item, "fixturenames", ())
        if (
            item.path.parent.name in UNMEASURED
            or not parameters.isdisjoint(UNMEASURED_TWINS)
            or any(name in UNMEASURED_FIXTURES for name in fixtures)
        ):
            item.add_marker("no_cover")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let processes that such a test starts be unmeasured too."""
    with pytest.MonkeyPatch.context() as environment:
        if item.get_closest_marker("no_cover") is not None:
            for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
                environment.delenv(name, raising=False)
        return (yield)


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


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A provider of embeddings that speaks OpenAI's protocol, faults included."""
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture
def fake_server() -> fakeredis.FakeServer:
    """A Redis in this process; ``connected`` False takes it away. Scripts need the package lupa."""
    if importlib.util.find_spec("lupa") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the package lupa is not installed: make install-dev")
        pytest.skip("the package lupa is not installed: make install-dev")
    return fakeredis.FakeServer()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The server at ``PENSTOCK_TEST_POSTGRES_URL`` (whose user may create databases), else a private one."""
    given = os.environ.get("PENSTOCK_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    try:
        server = PostgresServer()
    except NoServer as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no PostgreSQL here: {error}")
    yield server.url
    server.stop()


@pytest.fixture(scope="module")  # one that is idle takes a tenth of a processor
def s3_server() -> Iterator[S3Server]:
    """A private S3-compatible server; whoever stops or pauses it starts it again. Use a prefix of your own."""
    try:
        server = S3Server()
    except NoS3 as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no S3 server: {reason}")
        pytest.skip(f"no S3 server: {reason}")
    yield server
    server.close()
