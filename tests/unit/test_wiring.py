"""What is built from settings: addresses in the spelling of each library, secrets in files of their own."""

import os
import stat
import subprocess
import sys

import pytest

from penstock.settings import wiring
from penstock.settings.errors import MissingComponent
from penstock.settings.keys import admin_key_file, flower_password, keep_secret, kept_secret, read_secret
from penstock.settings.model import Settings
from penstock.storage.catalog.engine import LOCK_LOOK_S, LOCK_PAUSE_S, Catalog


def settings(tmp_path, **fields) -> Settings:
    return Settings(data_dir=tmp_path / "data", **fields)


@pytest.mark.parametrize(("niceness", "most_s"), [(0, LOCK_LOOK_S), (5, LOCK_PAUSE_S)])
def test_who_gives_way_at_the_processor_gives_way_at_the_lock_of_the_catalog(tmp_path, monkeypatch, niceness, most_s):
    asked: list[float] = []
    monkeypatch.setattr(wiring.os, "nice", lambda more: niceness + more)
    monkeypatch.setattr(Catalog, "open", lambda _url, *, lock_pause_s: asked.append(lock_pause_s))
    wiring.open_catalog(settings(tmp_path))
    assert asked == [most_s]


def test_the_private_server_is_the_same_for_every_process_of_a_directory():
    mine = Settings(data_dir="/srv/penstock")
    assert wiring.uses_embedded_server(mine)
    assert str(wiring.embedded_socket(mine)) == "/srv/penstock/valkey/valkey.sock"
    assert wiring.broker_url(mine) == "redis+socket:///srv/penstock/valkey/valkey.sock"
    assert wiring.redis_url(mine) == "unix:///srv/penstock/valkey/valkey.sock"
    assert wiring.result_url(mine) == wiring.broker_url(mine)


def test_a_data_directory_too_deep_for_a_socket_address_gets_a_short_one(tmp_path):
    deep = Settings(data_dir=tmp_path / ("d" * 120))
    other = Settings(data_dir=tmp_path / ("e" * 120))
    path = wiring.embedded_socket(deep)
    assert len(os.fsencode(path)) <= wiring.SOCKET_PATH_BYTES
    assert path == wiring.embedded_socket(deep) != wiring.embedded_socket(other)
    assert str(os.getuid()) in path.parent.name


@pytest.mark.parametrize(
    ("given", "kombu", "redis_py"),
    [
        ("redis://h:1/2", "redis://h:1/2", "redis://h:1/2"),
        ("rediss://:pw@h", "rediss://:pw@h", "rediss://:pw@h"),
        ("unix:///run/v.sock?db=1", "redis+socket:///run/v.sock?virtual_host=1", "unix:///run/v.sock?db=1"),
        (
            "redis+socket:///run/v.sock?virtual_host=1",
            "redis+socket:///run/v.sock?virtual_host=1",
            "unix:///run/v.sock?db=1",
        ),
        ("valkey://h:1", "redis://h:1", "redis://h:1"),
    ],
)
def test_a_broker_is_named_as_each_library_writes_it(tmp_path, given, kombu, redis_py):
    chosen = settings(tmp_path, broker_url=given)
    assert wiring.broker_url(chosen) == kombu
    assert wiring.redis_url(chosen) == redis_py
    assert wiring.broker_redis_url(chosen) == redis_py


def test_the_cache_may_be_another_server(tmp_path):
    chosen = settings(tmp_path, broker_url="amqp://r//", cache_url="redis://cache/3")
    assert wiring.broker_url(chosen) == "amqp://r//"
    assert wiring.redis_url(chosen) == wiring.result_url(chosen) == "redis://cache/3"


def test_the_catalog_lies_in_the_data_directory_unless_named(tmp_path):
    assert wiring.catalog_url(settings(tmp_path)) == f"sqlite:///{tmp_path}/data/catalog.sqlite3"
    assert wiring.catalog_url(settings(tmp_path, catalog_url="postgresql+psycopg://h/d")) == "postgresql+psycopg://h/d"


def test_the_data_directory_is_for_its_owner_alone(tmp_path):
    made = wiring.make_data_dir(settings(tmp_path))
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert wiring.make_data_dir(settings(tmp_path)) == made


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(MissingComponent, match=r"data cannot be made.*--data-dir"):
        wiring.make_data_dir(settings(tmp_path))


def test_a_secret_is_kept_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "some.key"
    assert read_secret(path) is None
    assert kept_secret(path, new=lambda: "first") == "first"
    assert kept_secret(path, new=lambda: "second") == "first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keep_secret(path, "third")
    assert read_secret(path) == "third"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_process_that_is_second_takes_the_secret_of_the_first(tmp_path):
    path = tmp_path / "some.key"

    def first_elsewhere() -> str:
        keep_secret(path, "theirs")
        return "mine"

    assert kept_secret(path, new=first_elsewhere) == "theirs"


def test_flowers_password_is_the_setting_or_made_once(tmp_path):
    assert flower_password(settings(tmp_path, flower={"password": "chosen"})) == "chosen"
    mine = settings(tmp_path)
    wiring.make_data_dir(mine)
    assert flower_password(mine) == flower_password(mine)
    assert len(flower_password(mine)) >= 16
    assert admin_key_file(mine).parent == mine.data_dir


def test_numerical_libraries_are_told_how_many_threads_they_may_start():
    variables = wiring.thread_environment(3)
    assert variables["OMP_NUM_THREADS"] == variables["OPENBLAS_NUM_THREADS"] == "3"


def test_importing_the_wiring_imports_no_component():
    code = "import sys, penstock.settings.wiring; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"sqlalchemy", "redis", "numpy", "numba", "onnxruntime", "celery"}.isdisjoint(loaded)
