"""A line prepared once and copied for each fault, and what must hold after it, whoever goes on."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from penstock.storage.catalog.collections import get_collection
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.retention import Retention
from penstock.storage.catalog.tables import manifests
from penstock.storage.collecting import collect_generations
from penstock.storage.errors import StorageError
from penstock.storage.objects.local import LocalObjects
from penstock.storage.segments.manifests import read_manifest

from .served_line import ServedLine, new_served_line
from .storage_samples import new_catalog

NEVER = 10_000  # operations: none of what is tested has so many
Act = Callable[[ServedLine], None]
Done = Callable[[ServedLine], bool]


@contextmanager
def template_line(folder: Path) -> Iterator[ServedLine]:
    """Give a line over a new catalog, both in ``folder``, to be prepared for ``prepared``."""
    catalog = new_catalog(_url(folder))
    yield new_served_line(catalog, folder)
    catalog.dispose()


@contextmanager
def prepared(template: Path, folder: Path) -> Iterator[ServedLine]:
    """Give a copy of a template, as another process finds it later."""
    shutil.copytree(template, folder)
    catalog = Catalog.open(_url(folder))
    collection = get_collection(catalog, tenant="default", name="papers")
    yield ServedLine(catalog, collection, objects=LocalObjects(folder / "objects"), now=1e6)
    catalog.dispose()


def check_recovery(line: ServedLine, act: Act, done: Done) -> None:
    """Somebody else does it, once, and afterwards no object is left that no version names."""
    other = replace(line, owner="another", now=line.now + 1e10, epoch=None)
    if not done(other):
        act(other)
    assert done(other)
    act_again(other, act)
    assert done(other)
    at_once = {"retention": Retention(1, 0.0), "min_age_s": -1e12}
    collect_generations(line.catalog, other.objects, tenant=line.tenant, now=other.now, **at_once)
    with line.catalog.read() as connection:
        kept = connection.scalars(sa.select(manifests.c.name)).all()
    named = {file for name in kept for file in read_manifest(other.objects, name).file_names} | set(kept)
    assert {info.name for info in other.objects.list("tenants/default/generations/")} == named
    assert done(other)


def act_again(line: ServedLine, act: Act) -> None:
    """A message that is delivered twice finds nothing to do, or a name that is taken."""
    try:
        act(line)
    except StorageError as error:
        assert "exists already" in str(error)  # noqa: PT017


def _url(folder: Path) -> str:
    return f"sqlite:///{folder}/catalog.db"
