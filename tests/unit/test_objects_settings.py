"""Where the settings put objects: one place, whose keys nobody sees."""

import pytest
from pydantic import ValidationError

from penstock.api.cli.checks import run_checks
from penstock.settings import wiring
from penstock.settings.errors import MissingComponent
from penstock.settings.model import Objects, Settings
from penstock.settings.sources import explain
from penstock.storage.objects.local import LocalObjects


def chosen(tmp_path, **objects) -> Settings:
    return Settings(data_dir=tmp_path / "data", objects=Objects(**objects))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"url": "s3://bucket", "directory": "/srv/objects"}, "two places"),
        ({"url": "https://bucket.s3.amazonaws.com"}, "must be s3://bucket"),
        ({"url": "s3://user:secret-word@bucket/x"}, "must be s3://bucket"),
        ({"url": "s3://bucket/../up"}, "prefix that is not allowed"),
        ({"url": "s3://b"}, "must be s3://bucket"),
        ({"url": "s3://bucket", "endpoint": "s3.example.com"}, "must be an http"),
        ({"url": "s3://bucket", "endpoint": "https://user:secret-word@s3.example.com"}, "without a user name"),
        ({"url": "s3://bucket", "access_key_id": "only-half"}, "belong together"),
        ({"endpoint": "https://s3.example.com"}, "objects.url is missing"),
    ],
)
def test_a_place_that_cannot_be_meant_is_refused_without_repeating_a_secret(given, says):
    with pytest.raises(ValidationError, match=says) as refused:
        Objects(**given)
    assert "secret-word" not in str(refused.value)


def test_objects_lie_in_the_data_directory_unless_named(tmp_path):
    assert wiring.open_objects(chosen(tmp_path)).root == tmp_path / "data" / "objects"
    assert wiring.open_objects(chosen(tmp_path, directory=tmp_path / "there")).root == tmp_path / "there"


def test_keys_of_a_bucket_are_shown_nowhere(tmp_path):
    pytest.importorskip("obstore")
    settings = chosen(
        tmp_path,
        url="s3://bucket/some/prefix",
        endpoint="https://s3.example.com",
        region="us-east-1",
        access_key_id="the-key-id",
        secret_access_key="the-secret",
    )

    objects = wiring.open_objects(settings)

    assert not isinstance(objects, LocalObjects)
    shown = f"{objects!r} {vars(objects)} {settings!r} {explain(settings)}"
    assert "s3://bucket/some/prefix at https://s3.example.com" in shown
    assert "the-secret" not in shown
    assert "the-key-id" not in shown


def test_a_bucket_without_its_package_is_told_how_to_get_it(tmp_path, monkeypatch):
    import sys  # noqa: PLC0415

    monkeypatch.delitem(sys.modules, "penstock.storage.objects.remote", raising=False)
    monkeypatch.delitem(sys.modules, "penstock.storage.objects.calls", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)

    with pytest.raises(MissingComponent, match=r"pip install 'penstock\[s3\]'"):
        wiring.open_objects(chosen(tmp_path, url="s3://bucket"))


def test_the_check_writes_reads_and_deletes_one_object(tmp_path):
    settings = chosen(tmp_path, directory=tmp_path / "there")

    found = {finding.what: finding for finding in run_checks(settings)}["object store"]

    assert found.ok, found
    assert [path for path in (tmp_path / "there").rglob("*") if path.is_file()] == []


def test_the_check_refuses_a_store_that_lets_objects_be_overwritten(tmp_path, monkeypatch):
    def overwrite(self, name, parts):
        self.delete(name)
        put(self, name, parts)

    put = LocalObjects.put
    monkeypatch.setattr(LocalObjects, "put", overwrite)

    found = {finding.what: finding for finding in run_checks(chosen(tmp_path))}["object store"]

    assert not found.ok
    assert "If-None-Match" in found.found
