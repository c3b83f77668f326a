"""An installation with a bit of everything, made once and copied for each test that damages it."""

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from typer.testing import CliRunner

from penstock.api.cli.application import app
from penstock.client import NewDocument
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.tables import generations
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.publisher import Publisher, Swap, release_lease
from penstock.storage.segments.manifests import Manifest, read_manifest
from penstock.storage.segments.sections import open_sections

from .http_service import Service, running_service


def make_installation(folder: Path) -> None:
    """Two tenants; the collection ``books`` has a graph segment with tombstones and a flat one, and past versions."""
    with running_service(folder) as service:
        with service.penstock() as penstock:
            penstock.create_collection("books")
            submit(service, "books", texts("b", 120))
            merge(service, "books", graph_rows=50)
            submit(service, "books", texts("b", 10, edition=2))
            submit(service, "books", texts("c", 20))
            merge(service, "books", only="flat")
        with service.penstock("other") as penstock:
            penstock.create_collection("notes")
            submit(service, "notes", texts("n", 5), tenant="other")
        release_lease(service.components.catalog, shard=0, owner="tests", epoch=service.epoch or 0)


def texts(letter: str, count: int, *, edition: int = 1) -> dict[str, str]:
    """Texts that have few words in common, so that each has a place of its own in a graph."""
    chosen = random.Random(f"{letter}{edition}")
    return {f"{letter}{n}": " ".join(f"word{chosen.randrange(5_000)}" for _ in range(30)) for n in range(count)}


def submit(service: Service, collection: str, texts: dict[str, str], *, tenant: str = "default") -> None:
    documents = [
        NewDocument(source=source, text=text, metadata={"topic": source[0], "number": int(source[1:])})
        for source, text in texts.items()
    ]
    with service.penstock(tenant) as penstock:
        penstock.submit(collection, documents)
    service.index()


def merge(service: Service, collection: str, *, graph_rows: int = 10_000, only: str | None = None) -> None:
    catalog, objects = service.components.catalog, service.components.objects
    info = service.components.lookups.collection("default", collection)
    with catalog.read() as connection:
        name = connection.scalar(sa.select(generations.c.manifest).where(generations.c.id == info.generation.id))
    manifest = read_manifest(objects, name)
    entries = [entry for entry in manifest.segments if only in {None, entry.kind}]
    output = build_merge(objects, manifest, entries, graph_rows=graph_rows)
    swap = Swap([entry.id for entry in entries], output)
    Publisher(catalog, objects).publish(info.generation.id, epoch=service.epoch, shard=0, swap=swap)


@dataclass
class Installation:
    """A copy, without a server. What a test does to it stays here."""

    folder: Path

    def __post_init__(self) -> None:
        self.catalog = Catalog.open(f"sqlite:///{self.folder / 'catalog.sqlite3'}")
        self.objects = LocalObjects(self.folder / "objects")

    def doctor(self, *words: str, code: int) -> dict[str, Any]:
        """Run `penstock doctor --json` and return what it says."""
        result = CliRunner().invoke(app, ["doctor", "--data-dir", str(self.folder), "--json", *words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def doctor_fails(self, *words: str) -> str:
        """Run `penstock doctor` where it cannot do what it is asked; return what it says."""
        result = CliRunner().invoke(app, ["doctor", "--data-dir", str(self.folder), *words])
        assert result.exit_code == 1
        return str(result.exception)

    def current(self, tenant: str = "default") -> Manifest:
        with self.catalog.read() as connection:
            wanted = sa.select(generations.c.manifest).where(generations.c.tenant_id == tenant)
            return read_manifest(self.objects, connection.scalars(wanted).one())

    def path(self, name: str) -> Path:
        return self.folder / "objects" / name

    def rewrite(self, name: str, data: bytes) -> None:
        """Give an object other bytes. The inode is new, as after a restore."""
        path = self.path(name)
        path.unlink()
        path.write_bytes(data)

    def flip(self, name: str, *, at: int | None = None) -> None:
        data = bytearray(self.path(name).read_bytes())
        data[len(data) // 2 if at is None else at] ^= 1
        self.rewrite(name, bytes(data))

    def flip_section(self, name: str, section: str) -> None:
        """Flip a bit in one section of a segment."""
        array = open_sections(self.path(name), kind="segment").arrays[section]
        at = self.path(name).read_bytes().find(array.tobytes())
        assert at > 0
        self.flip(name, at=at)

    def execute(self, statement: sa.Executable) -> None:
        with self.catalog.write() as connection:
            connection.execute(statement)

    def close(self) -> None:
        self.catalog.dispose()


def copied(template: Path, folder: Path) -> Installation:
    shutil.copytree(template, folder)
    return Installation(folder)
