"""`penstock models`, and what `penstock up` and `penstock config check` say of a model that cannot be used."""

import json

import pytest
from typer.testing import CliRunner

from penstock.api.cli.application import app
from penstock.api.cli.checks import run_checks
from penstock.api.supervisor.installation import check_model
from penstock.pipeline.errors import ProviderMisconfigured
from penstock.settings.model import Settings

from ..embedding_endpoint import DIMENSIONS


@pytest.fixture
def listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words: str, **environment: str):
        settings = {f"PENSTOCK_EMBEDDING__{name.upper()}": value for name, value in environment.items()}
        done = CliRunner().invoke(app, ["models", "--data-dir", str(tmp_path), *words], env=settings)
        assert done.exit_code == 0, done.output
        return done

    return run


def by_name(done) -> dict[str, dict]:
    return {one["name"]: one for one in json.loads(done.stdout)["models"]}


def embedding(settings: Settings):
    [finding] = [finding for finding in run_checks(settings) if finding.what == "embedding"]
    return finding


def test_every_model_is_listed_with_its_card_and_what_it_lacks(listed):
    found = by_name(listed("--json"))

    assert found["minilm"]["chosen"]
    assert found["minilm"]["available"]
    small = found["openai/text-embedding-3-small"]
    assert (small["dimensions"], small["shortest_dimensions"], small["input_limit_tokens"]) == (1536, 256, 8191)
    assert small["usd_per_million_tokens"] == 0.02
    assert (small["requests_per_minute"], small["tokens_per_minute"]) == (3_000, 1_000_000)
    assert found["minilm"]["requests_per_minute"] is None
    assert [lack["kind"] for lack in small["missing"]] == ["key"]
    bge = found["fastembed/bge-small-en-v1.5"]
    assert bge["query_prefix"].startswith("Represent")
    assert not bge["available"]
    assert bge["missing"][-1]["advice"] == "penstock models fetch fastembed/bge-small-en-v1.5"
    assert found["static"]["speed"] == "fast"


def test_a_key_makes_openais_models_ready(listed):
    found = by_name(listed("--json", openai_api_key="sk-secret"))

    assert found["openai/text-embedding-3-large"]["available"]


def test_a_model_of_another_endpoint_is_listed_as_the_settings_declare_it(listed):
    found = by_name(
        listed(
            "--json",
            model="openai/nomic",
            openai_base_url="http://127.0.0.1:9/v1",
            openai_dimensions="768",
            openai_usd_per_million_tokens="0.5",
            openai_input_limit_tokens="2048",
            openai_query_prefix="search_query: ",
        )
    )

    nomic = found["openai/nomic"]
    assert (nomic["chosen"], nomic["available"], nomic["dimensions"]) == (True, True, 768)
    assert (nomic["usd_per_million_tokens"], nomic["input_limit_tokens"]) == (0.5, 2048)
    assert nomic["query_prefix"] == "search_query: "


def test_people_are_told_what_to_do_about_each_lack(listed):
    said = " ".join(listed().stdout.split())

    assert "minilm (chosen)" in said
    assert "256 to 1,536" in said
    assert "key of openai/text-embedding-3-small, openai/text-embedding-3-large" in said
    assert "embedding.openai_api_key" in said


def test_a_setting_that_names_no_model_is_told_and_the_others_are_listed(listed):
    done = listed(model="bge")

    assert "There is no embedding model 'bge'" in done.stderr
    assert "minilm" in done.stdout


def test_only_models_with_weights_of_their_own_are_fetched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["models", "fetch", "minilm"])

    assert done.exit_code != 0
    assert "fastembed/bge-small-en-v1.5" in str(done.exception)


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ({"model": "bge"}, "bge"),
        ({"model": "openai/text-embedding-3-small"}, "embedding.openai_api_key"),
        ({"model": "openai/nomic"}, "embedding.openai_dimensions"),
        ({"model": "openai/text-embedding-ada-002", "openai_dimensions": 512}, "embedding.openai_dimensions"),
        ({"model": "openai/text-embedding-3-small", "openai_dimensions": 2048}, "embedding.openai_dimensions"),
        ({"model": "fastembed/bge-small-en-v1.5"}, "penstock models fetch fastembed/bge-small-en-v1.5"),
    ],
)
def test_up_refuses_a_model_that_cannot_be_used_and_so_does_the_check(tmp_path, chosen, named):
    settings = Settings(data_dir=tmp_path, embedding=chosen)

    with pytest.raises(ProviderMisconfigured) as refused:
        check_model(settings)

    assert named in str(refused.value)
    found = embedding(settings)
    assert not found.ok
    assert found.advice.startswith("change embedding.")


@pytest.mark.parametrize(
    ("fault", "setting"),
    [
        ({"status": 401, "message": "bad key"}, "embedding.openai_api_key"),
        ({"status": 404, "message": "no such model"}, "embedding.model"),
        ({"status": 429, "message": "pay", "code": "insufficient_quota"}, "embedding.openai_api_key"),
    ],
)
def test_up_asks_an_endpoint_once_and_refuses_what_it_refuses(tmp_path, endpoint, fault, setting):
    endpoint.fault = lambda handler, _request: handler.refuse(**fault)
    chosen = {"model": "openai/x", "openai_base_url": endpoint.url, "openai_dimensions": DIMENSIONS}

    with pytest.raises(ProviderMisconfigured) as refused:
        check_model(Settings(data_dir=tmp_path, embedding=chosen))

    assert refused.value.setting == setting
    assert setting in str(refused.value)
    assert len(endpoint.requests) == 1


def test_an_endpoint_that_cannot_be_reached_fails_the_check_and_up_waits_for_it(tmp_path):
    chosen = {"model": "openai/x", "openai_base_url": "http://127.0.0.1:1/v1", "openai_dimensions": DIMENSIONS}
    settings = Settings(data_dir=tmp_path, embedding=chosen)
    found = embedding(settings)

    assert not found.ok
    assert "embedding.openai_base_url" in found.found
    check_model(settings)


def test_local_models_are_not_loaded_before_the_roles_are(tmp_path, monkeypatch):
    monkeypatch.setattr("penstock.pipeline.embedding.minilm._load_session", lambda: pytest.fail("loaded"))

    check_model(Settings(data_dir=tmp_path))


def test_switching_the_provider_is_one_setting(tmp_path, endpoint):
    shared = {"openai_base_url": endpoint.url, "openai_dimensions": DIMENSIONS}
    for model in ("minilm", "hash", "hash-256", "openai/local", "openai/text-embedding-3-small"):
        settings = Settings(data_dir=tmp_path, embedding={"model": model, **shared})
        check_model(settings)
        assert embedding(settings).ok
