"""Where settings come from, which of them wins, and what is refused."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from penstock.settings import model
from penstock.settings.errors import InvalidSettings
from penstock.settings.model import Settings, default_data_dir
from penstock.settings.sources import as_environment, as_variable, explain, known_keys, load, settings_file

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "examples" / "configs"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No penstock.toml of the checkout, no variables of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_CONFIG", raising=False)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def values(settings: Settings) -> dict:
    """What the settings are, without where they came from."""
    return settings.model_dump()


def problems(path=None, overrides=None, **environ) -> list[str]:
    with pytest.raises(InvalidSettings) as raised:
        load(path, overrides, environ=environ)
    return list(raised.value.problems)


def test_defaults_need_no_file_and_no_variable():
    settings = load(environ={})
    assert values(settings) == values(Settings())
    assert settings.data_dir == default_data_dir()
    assert settings.broker_url is None


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(tmp_path):
    write(tmp_path / "penstock.toml", "[api]\nport = 1\nhost = 'a'\n[search]\nef = 100\n")
    environ = {"PENSTOCK_API__PORT": "2", "PENSTOCK_API__HOST": "b"}
    settings = load(None, {"api.port": 3}, environ=environ)

    assert (settings.api.port, settings.api.host, settings.search.ef) == (3, "b", 100)
    assert settings.search.max_k == Settings().search.max_k
    origins = {entry.key: entry.origin for entry in explain(settings)}
    assert origins["api.port"] == "flag"
    assert origins["api.host"] == "PENSTOCK_API__HOST"
    assert origins["search.ef"] == str(tmp_path / "penstock.toml")
    assert origins["search.max_k"] == "default"


def test_a_flag_that_was_not_given_changes_nothing():
    settings = load(None, {"api.port": None, "data_dir": None}, environ={"PENSTOCK_API__PORT": "5"})
    assert settings.api.port == 5


def test_a_named_file_is_read_instead_of_the_one_here(tmp_path):
    write(tmp_path / "penstock.toml", "[api]\nport = 1\n")
    other = write(tmp_path / "other.toml", "[api]\nport = 2\n")
    assert load(other, environ={}).api.port == 2
    assert load(environ={"PENSTOCK_CONFIG": str(other)}).api.port == 2
    assert settings_file(environ={}) == tmp_path / "penstock.toml"


def test_a_named_file_that_is_missing_is_an_error(tmp_path):
    assert "no such settings file" in problems(tmp_path / "none.toml")[0]


def test_a_file_that_is_no_toml_is_named(tmp_path):
    file = write(tmp_path / "penstock.toml", "[api\n")
    assert problems()[0].startswith(f"{file}: cannot be read")


@pytest.mark.parametrize(
    ("text", "key", "suggestion"),
    [
        ("[api]\nprot = 1\n", "api.prot", "api.port"),
        ("prot = 1\n", "prot", "api.port"),
        ("[worker]\nlease_s = 1\n", "worker", "workers"),
        ("[api]\nlease_s = 1\n", "api.lease_s", "workers.lease_s"),
        ("broker = 'redis://x'\n", "broker", "broker_url"),
    ],
)
def test_an_unknown_key_in_the_file_is_an_error_with_a_suggestion(tmp_path, text, key, suggestion):
    file = write(tmp_path / "penstock.toml", text)
    assert problems() == [f"{file}: unknown setting {key!r}; did you mean {suggestion!r}?"]


def test_an_unknown_variable_is_an_error_with_a_suggestion():
    assert problems(PENSTOCK_API__PROT="1") == [
        "environment: unknown variable PENSTOCK_API__PROT; did you mean 'PENSTOCK_API__PORT'?"
    ]
    assert problems(PENSTOCK_DATADIR="x") == [
        "environment: unknown variable PENSTOCK_DATADIR; did you mean 'PENSTOCK_DATA_DIR'?"
    ]


def test_a_word_like_no_setting_points_to_the_list_of_settings(tmp_path):
    write(tmp_path / "penstock.toml", "zzz = 1\n")
    assert "`penstock config show` lists all settings" in problems()[0]


def test_every_problem_is_told_at_once(tmp_path):
    write(tmp_path / "penstock.toml", "[api]\nprot = 1\n[log]\nlevle = 'info'\n")
    assert len(problems(PENSTOCK_DATADIR="x")) == 3


@pytest.mark.parametrize(
    "name",
    ["PENSTOCK_URL", "PENSTOCK_API_KEY", "PENSTOCK_TENANT", "PENSTOCK_DEBUG", "PENSTOCK_FAILPOINT", "PENSTOCK_TEST_X"],
)
def test_variables_of_the_client_and_of_tests_are_no_settings_and_no_errors(name):
    assert values(load(environ={name: "anything"})) == values(Settings())


def test_a_wrong_value_is_named_with_where_it_came_from(tmp_path):
    file = write(tmp_path / "penstock.toml", "[api]\nport = 'many'\n[log]\nlevel = 'loud'\n")
    found = problems()
    assert [problem.split(": ")[:2] for problem in found] == [[str(file), "api.port"], [str(file), "log.level"]]
    assert problems(PENSTOCK_SEARCH__EF="1", PENSTOCK_CONFIG="")[-1].startswith(str(file))


def test_a_value_in_place_of_a_table_is_told_so(tmp_path):
    file = write(tmp_path / "a.toml", "api = 5\n")
    assert problems(file, PENSTOCK_API__PORT="7811") == [
        f"{file}: api is a table of settings, such as [api] in penstock.toml"
    ]


def test_a_wrong_variable_is_named():
    assert problems(PENSTOCK_SEARCH__EF="1")[0].startswith("PENSTOCK_SEARCH__EF: search.ef: ")
    assert problems(None, {"api.port": 70000})[0].startswith("flag: api.port: ")


def test_lists_are_separated_by_commas_in_a_variable():
    settings = load(environ={"PENSTOCK_TENANTS__CREATE": "acme, globex"})
    assert settings.tenants.create == ("acme", "globex")


def test_a_tenant_that_may_not_be_named_so_is_refused():
    assert "'Acme Inc'" in problems(PENSTOCK_TENANTS__CREATE="default,Acme Inc")[0]


def test_settings_cannot_be_changed_once_read():
    with pytest.raises(ValidationError):
        Settings().api = model.Api()
    with pytest.raises(ValidationError):
        Settings().api.port = 1


def test_reading_settings_directly_ignores_the_environment(monkeypatch):
    monkeypatch.setenv("PENSTOCK_API__PORT", "1")
    assert Settings().api.port == 7700


@pytest.mark.parametrize("url", ["nonsense", "", "http://127.0.0.1"])
def test_what_is_no_queue_is_told_what_one_looks_like(url):
    assert "broker_url: is no address of a queue: write redis://" in problems(PENSTOCK_BROKER_URL=url)[0]


def test_a_queue_that_is_no_redis_needs_a_cache_that_is_one():
    assert "cache_url is needed" in problems(PENSTOCK_BROKER_URL="amqp://rabbit//")[0]
    assert "must be a Redis" in problems(PENSTOCK_CACHE_URL="memcached://x")[0]
    load(environ={"PENSTOCK_BROKER_URL": "amqp://rabbit//", "PENSTOCK_CACHE_URL": "redis://cache"})


def test_a_short_admin_key_is_refused():
    assert "at least 16 characters" in problems(PENSTOCK_ADMIN_KEY="secret")[0]


def test_secrets_are_never_shown(tmp_path):
    secret = "s3cr3t-s3cr3t-s3cr3t"
    environ = {
        "PENSTOCK_ADMIN_KEY": secret,
        "PENSTOCK_EMBEDDING__OPENAI_API_KEY": secret,
        "PENSTOCK_FLOWER__PASSWORD": secret,
        "PENSTOCK_BROKER_URL": f"redis://user:{secret}@host:6379/0",
        "PENSTOCK_CATALOG_URL": f"postgresql+psycopg://user@host/db?password={secret}",
    }
    settings = load(environ=environ)
    shown = {entry.key: entry.value for entry in explain(settings)}

    assert secret not in json.dumps(shown) + repr(settings) + str(settings) + settings.model_dump_json()
    assert shown["broker_url"] == "redis://user:••••••••@host:6379/0"
    secrets = [key for key, value in _leaves(settings) if isinstance(value, SecretStr)]
    assert len(secrets) == len(environ)


def test_a_wrong_secret_is_not_repeated_in_the_error():
    assert "hunter2" not in "".join(problems(PENSTOCK_ADMIN_KEY="hunter2"))


def test_flags_reach_a_subprocess_as_variables():
    overrides = {"api.port": 0, "data_dir": "/somewhere/x y", "tenants.create": "a,b", "log.format": None}
    settings = load(None, overrides, environ={})
    assert values(load(environ=as_environment(overrides))) == values(settings)


def test_every_setting_has_a_meaning():
    assert [entry.key for entry in explain(Settings()) if len(entry.description) < 8] == []


def test_times_and_sizes_have_their_unit_in_their_name():
    unit = re.compile(r"_(s|bytes|tokens)$")
    shares = {"shadow.min_overlap", "shadow.max_ndcg_drop"}  # 0 to 1
    for key, value in _leaves(Settings()):
        if isinstance(value, float) and key not in shares:
            assert unit.search(key), key


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.toml")), ids=lambda path: path.name)
def test_each_template_loads(template):
    settings = load(template, environ={})
    for key in _flat(tomllib.loads(template.read_text())):
        assert {entry.key: entry.origin for entry in explain(settings)}[key] == str(template)
    assert template.read_text().count("#") >= 5


def test_there_are_four_templates():
    assert {path.stem for path in TEMPLATES.glob("*.toml")} == {"basic", "multi-tenant", "performance", "production"}


def test_the_basic_template_says_the_defaults():
    assert values(load(TEMPLATES / "basic.toml", environ={})) == values(Settings())


def test_every_setting_named_in_a_template_comment_exists():
    for template in TEMPLATES.glob("*.toml"):
        for name in re.findall(r"PENSTOCK_[A-Z_]+", template.read_text()):
            known = {as_variable(key) for key in known_keys()} | {"PENSTOCK_CONFIG", "PENSTOCK_TENANT", "PENSTOCK_"}
            assert name in known, f"{template.name}: {name}"


@pytest.mark.parametrize(
    "url",
    ["http://user:s3cret@host/v1", "https://s3cret@host", "http://user:s3cret/x@host/v1", "user:s3cret@host/v1"],
)
def test_a_password_in_the_embedding_url_is_refused_and_not_repeated(url):
    (problem,) = problems(PENSTOCK_EMBEDDING__OPENAI_BASE_URL=url)

    assert problem.startswith("PENSTOCK_EMBEDDING__OPENAI_BASE_URL: embedding.openai_base_url: ")
    assert "s3cret" not in problem
    with pytest.raises(ValidationError) as raised:
        Settings(embedding={"openai_base_url": url})
    assert "s3cret" not in str(raised.value)


def test_the_key_is_where_a_password_in_the_embedding_url_belongs():
    (problem,) = problems(None, {"embedding.openai_base_url": "http://user:s3cret@host/v1"})
    assert "put the endpoint's key into embedding.openai_api_key" in problem


@pytest.mark.parametrize(
    "url", ["", "host/v1", "ftp://host/v1", "http://", "http:///v1", "http://[::1/v1", "http://h:x"]
)
def test_the_embedding_url_is_an_http_url(url):
    (problem,) = problems(PENSTOCK_EMBEDDING__OPENAI_BASE_URL=url)
    assert "must be an http:// or https:// URL, for example" in problem


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/v1", "https://api.openai.com/v1/", "http://[::1]:80"])
def test_an_http_url_is_an_embedding_url(url):
    assert load(environ={"PENSTOCK_EMBEDDING__OPENAI_BASE_URL": url}).embedding.openai_base_url == url


def test_every_setting_is_read_somewhere():
    """A setting that nothing reads is a promise that nobody keeps."""
    folders = ("workers", "pipeline", "storage", "settings", "api")
    sources = "\n".join(
        path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py") if path.name != "model.py"
    )
    unread = [key for key, _ in _leaves(Settings()) if not re.search(rf"\.{key.rsplit('.', 1)[-1]}\b", sources)]
    assert unread == []


def _flat(values: dict, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in values.items():
        keys += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return keys


def _leaves(settings, prefix: str = ""):
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, model.Group):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
