"""The commands for this machine: checking the settings, starting processes, and what the operator is told."""

import json
import os
import re
import socket
import sys

import pytest

from penstock.api import cli
from penstock.api.cli import processes
from penstock.api.cli.arguments import parse_moment
from penstock.api.cli.checks import run_checks
from penstock.api.cli.exits import UsageError
from penstock.api.cli.passages import LENGTH, marked_passage, window
from penstock.api.cli.welcome import announcer
from penstock.api.supervisor.installation import prepare
from penstock.api.supervisor.logs import LogStream
from penstock.api.supervisor.running import Started
from penstock.settings import wiring
from penstock.settings.errors import InvalidSettings, MissingComponent
from penstock.settings.keys import admin_key_file, read_secret
from penstock.settings.model import Settings, Workers
from penstock.settings.sources import load
from penstock.storage import paths
from penstock.storage.catalog.collections import create_collection
from penstock.storage.errors import Damaged
from penstock.storage.ids import GenerationId, ManifestVersion, TenantId


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "data", embedding={"model": "hash"})


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("PENSTOCK_"):
            monkeypatch.delenv(name)


def findings(settings) -> dict[str, tuple[bool, str]]:
    return {finding.what: (finding.ok, finding.found) for finding in run_checks(settings)}


def test_a_fresh_machine_passes_every_check(settings):
    found = findings(settings)
    assert all(ok for ok, _ in found.values()), found
    assert list(found) == ["settings", "data directory", "catalog", "object store", "queue server", "embedding"]
    assert "will be made" in found["catalog"][1]


def test_a_prepared_installation_passes_every_check(settings):
    prepare(settings)
    assert "this program's" in findings(settings)["catalog"][1]


def test_fewer_shards_than_collections_were_made_in_are_found_before_anything_starts(settings):
    prepare(settings)
    catalog = wiring.open_catalog(settings)
    options = {"model": "hash", "dimensions": 384, "metric": "cosine", "chunking": {}, "shards": 1_000, "now": 1.0}
    shard = create_collection(catalog, tenant=TenantId("default"), name="docs", **options).generation.shard
    catalog.dispose()

    with pytest.raises(InvalidSettings, match=f"set workers.shards to at least {shard + 1}"):
        prepare(settings)
    ok, found = findings(settings)["catalog"]
    assert not ok
    assert f"set workers.shards to at least {shard + 1}" in found
    assert findings(settings.model_copy(update={"workers": Workers(shards=shard + 1)}))["catalog"][0]


def test_every_check_that_fails_says_what_and_what_to_do(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "catalog.sqlite3").write_text("not a database, but long enough to be taken for one" * 20)
    broken = Settings(
        data_dir=tmp_path / "data",
        broker_url="redis://127.0.0.1:9",
        embedding={"model": "no-such-model"},
    )
    found = list(run_checks(broken))
    failed = {finding.what: finding for finding in found if not finding.ok}
    assert set(failed) == {"catalog", "broker", "cache", "embedding"}
    assert all(finding.advice and finding.found for finding in failed.values())
    assert "no-such-model" in failed["embedding"].found


def test_a_rabbitmq_is_only_reached_for(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        chosen = Settings(
            data_dir=tmp_path,
            broker_url=f"amqp://u:secret@127.0.0.1:{port}//",
            cache_url="redis://127.0.0.1:9",
            embedding={"model": "hash"},
        )
        found = findings(chosen)
    assert found["broker"] == (True, f"127.0.0.1:{port} accepts connections")
    assert not found["cache"][0]


def test_an_installation_is_prepared_once(settings):
    key = prepare(settings)
    assert key is not None
    assert prepare(settings) is None
    assert read_secret(admin_key_file(settings)) == key
    replaced = prepare(settings, new_key="another-key-for-this-one")
    assert replaced == "another-key-for-this-one" == read_secret(admin_key_file(settings))


def test_a_new_catalog_is_not_begun_where_the_objects_of_a_lost_one_lie(settings):
    prepare(settings)
    manifest = paths.manifest(TenantId("acme"), GenerationId("gen_1"), version=ManifestVersion(1), digest="0" * 64)
    wiring.open_objects(settings).put(manifest, [b"{}"])
    assert prepare(settings) is None
    for file in settings.data_dir.glob("catalog.sqlite3*"):
        file.unlink()
    for _ in range(2):  # what the first attempt left behind does not let the second through
        with pytest.raises(MissingComponent, match="--rebuild-catalog"):
            prepare(settings)


def test_a_catalog_that_is_no_database_is_told_with_the_way_out(settings):
    wiring.make_data_dir(settings)
    (settings.data_dir / "catalog.sqlite3").write_bytes(b"garbage " * 4_000)
    with pytest.raises(Damaged, match=r"catalog.sqlite3 cannot be read: .*--rebuild-catalog"):
        prepare(settings)


def test_a_key_from_the_settings_is_kept_but_not_shown(tmp_path):
    chosen = Settings(data_dir=tmp_path / "data", admin_key="a-key-of-the-settings", tenants={"create": ("acme",)})
    assert prepare(chosen) is None
    assert read_secret(admin_key_file(chosen)) == "a-key-of-the-settings"


def test_a_subprocess_reads_the_same_settings_wherever_it_starts(tmp_path, monkeypatch):
    (tmp_path / "penstock.toml").write_text("[search]\nef = 99\n")
    overrides = {"data_dir": tmp_path / "there", "api.port": 0, "api.host": None}
    settings = load(None, overrides)
    environment = processes._environment(None, settings, overrides)
    monkeypatch.chdir("/")
    again = load(environ=environment)
    assert again.model_dump() == settings.model_dump()
    assert (again.search.ef, again.api.port, again.data_dir) == (99, 0, tmp_path / "there")


def test_the_worker_command_becomes_the_role(monkeypatch, tmp_path):
    became = {}
    monkeypatch.setattr("os.execve", lambda path, argv, env: became.update(path=path, argv=argv, env=env))
    processes.worker("index", data_dir=tmp_path, shard=[0, 2])
    assert became["path"] == sys.executable
    assert became["argv"][1:] == ["-m", "penstock.workers", "index", "--shard", "0", "--shard", "2"]
    assert became["env"]["PENSTOCK_DATA_DIR"] == str(tmp_path)
    assert became["env"]["OMP_NUM_THREADS"] == "1"
    processes.beat(data_dir=tmp_path)
    assert became["argv"][3] == "beat"
    processes.flower(data_dir=tmp_path)
    assert became["argv"][3] == "flower"


def test_threads_chosen_by_the_operator_stay(monkeypatch, tmp_path):
    became = {}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setattr("os.execve", lambda path, argv, env: became.update(env))
    processes.worker("search", data_dir=tmp_path)
    assert became["OMP_NUM_THREADS"] == "5"


def test_the_operator_is_told_the_addresses_and_the_new_key(settings, capsys):
    started = Started("http://127.0.0.1:7700", "http://127.0.0.1:5555", "pk_admin_x")
    announcer(settings, LogStream(sys.stdout, as_json=False, coloured=False), as_json=False)(started)
    shown = re.sub(r"[\s│]", "", capsys.readouterr().out)  # a long path is wrapped
    for part in (
        "http://127.0.0.1:7700",
        "/docs",
        str(settings.data_dir),
        "pk_admin_x",
        "flower.password",
        "thisonce",
    ):
        assert part in shown


def test_a_known_key_is_not_shown(settings, capsys):
    announcer(settings, LogStream(sys.stdout, as_json=False, coloured=False), as_json=False)(Started(None, None, None))
    assert "admin key" not in capsys.readouterr().out


def test_programs_are_told_the_same(settings, capsys):
    log = LogStream(sys.stdout, as_json=True, coloured=False)
    announcer(settings, log, as_json=True)(Started("http://x", None, "pk_admin_x"))
    entry = json.loads(capsys.readouterr().out)
    assert (entry["event"], entry["url"], entry["admin_key"]) == ("starting", "http://x", "pk_admin_x")


def test_an_error_ends_the_program_with_its_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["penstock", "worker", "cook"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "there is no role 'cook'" in capsys.readouterr().err


def test_without_typer_the_program_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit, match="pip install"):
        cli.main()


def test_a_short_passage_is_shown_whole():
    assert marked_passage("Water and weirs.", "weirs", styled=False).plain == "Water and «weirs»."


def test_a_long_passage_is_cut_between_words_where_most_words_match():
    text = (
        " ".join(f"filler{number}" for number in range(200)) + " the penstock leads water to a turbine " + "end " * 200
    )
    passage = marked_passage(text, "penstock water turbine", styled=False).plain
    assert passage.startswith("… ")
    assert passage.endswith(" …")
    assert "«penstock» leads «water» to a «turbine»" in passage
    assert len(passage) < LENGTH + 30
    assert all(word in text.split() for word in passage.strip("… ").replace("«", "").replace("»", "").split())


def test_lines_and_control_characters_of_a_passage_become_blanks():
    assert marked_passage("one\n\n  two\x1b[2J three", "two", styled=False).plain == "one «two» [2J three"


def test_a_window_never_leaves_the_text():
    for length in (10, 50, 359, 360, 361, 1000):
        text = "x" * length
        for spans in ([], [(0, 5)], [(length - 5, length)]):
            begin, end = window(text, spans, length=LENGTH)
            assert 0 <= begin < end <= length
            assert end - begin <= max(LENGTH, 1)


def test_matches_are_styled_on_a_terminal():
    passage = marked_passage("Water and weirs.", "weirs", styled=True)
    assert passage.plain == "Water and weirs."
    assert [(span.start, span.end) for span in passage.spans] == [(10, 15)]


def test_eight_digits_are_neither_taken_for_a_date_nor_for_seconds():
    with pytest.raises(UsageError, match="Write 2026-01-31, or"):
        parse_moment("--event-time", "20260131")
    assert parse_moment("--event-time", "20260131.0") == 20_260_131
    assert parse_moment("--event-time", "2026-01-31") == 1_769_817_600
    assert parse_moment("--event-time", "99999999") == 99_999_999


def test_times_are_read_as_the_server_reads_them():
    assert parse_moment("--event-time", "2026-01-31t13:00:00.5+01") == 1_769_860_800.5
    for refused in ("20260131T120000", "2026-W05", "2026-01-31T12"):
        with pytest.raises(UsageError, match=r"--event-time .*: write a date or time in ISO 8601"):
            parse_moment("--event-time", refused)
