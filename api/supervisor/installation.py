"""What an installation needs before its first process starts: a schema, an admin key, tenants."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock.settings.errors import MissingComponent
from penstock.settings.keys import admin_key_file, keep_secret
from penstock.settings.model import Settings
from penstock.settings.wiring import (
    card_of,
    check_shards,
    make_data_dir,
    open_catalog,
    open_embedder,
    open_objects,
)

if TYPE_CHECKING:
    from penstock.storage.catalog.engine import Catalog


def migrate_catalog(settings: Settings) -> None:
    """Bring the catalog's schema to this program's; harmless when it is there already.

    Raises:
        MissingComponent: nobody ever used the catalog, but the object store holds what another one tells of.
        Unsupported: the schema is a newer program's.
        Unavailable: the database does not answer; or it is new, and the object store does not.
    """
    from penstock.storage.catalog.migrations import migrate  # noqa: PLC0415

    catalog = open_catalog(settings)
    try:
        refuse_to_orphan(settings, catalog)
        migrate(catalog)
    finally:
        catalog.dispose()


def refuse_to_orphan(settings: Settings, catalog: "Catalog") -> None:
    """Raise MissingComponent where a lost catalog would be begun anew: the collector deletes what no catalog names."""
    from penstock.storage import paths  # noqa: PLC0415
    from penstock.storage.catalog.tenants import is_unused  # noqa: PLC0415

    if not is_unused(catalog):
        return
    published = (one.name for one in open_objects(settings).list("tenants/") if paths.manifest_version(one.name))
    if (name := next(published, None)) is not None:
        raise MissingComponent(
            f"the catalog is new, but the object store holds versions of collections that it does not know, such as "
            f"{name}, and would lose them: restore the catalog, or make it again with `penstock doctor "
            "--rebuild-catalog`; for a new installation choose an empty data_dir or object store"
        )


def prepare(settings: Settings, *, new_key: str | None = None, clock: Callable[[], float] = time.time) -> str | None:
    """Make the installation ready for its roles and return the admin key if it was made just now.

    ``new_key`` replaces the key of an installation that exists; a key in the settings does so too, but is not returned.
    The key is kept for the command line of this user in `admin_key_file`.

    Raises:
        InvalidSettings: there are collections of a shard that ``workers.shards`` leaves without a writer.
        MissingComponent, Unsupported, Unavailable: as `migrate_catalog`.
    """
    from penstock.storage.catalog.tenants import create_tenant, ensure_installation, list_tenants  # noqa: PLC0415

    migrate_catalog(settings)
    chosen = settings.admin_key.get_secret_value() if settings.admin_key else new_key
    catalog = open_catalog(settings)
    try:
        check_shards(settings, catalog)
        made = ensure_installation(catalog, now=clock(), key=chosen)
        present = {tenant.id for tenant in list_tenants(catalog)}
        for tenant in settings.tenants.create:
            if tenant not in present:
                create_tenant(catalog, tenant, now=clock())
    finally:
        catalog.dispose()
    if made is not None:
        keep_secret(admin_key_file(settings), made)
    return made if settings.admin_key is None else None


def check_model(settings: Settings) -> None:
    """Return when the model of new collections is installed, and its endpoint, if it has one, takes what it is given.

    Loads no weights. An endpoint that cannot be reached may come up while the roles start, and they wait for it.

    Raises:
        ProviderMisconfigured: a person has to see to it: the setting is named.
    """
    from penstock.pipeline.embedding import missing  # noqa: PLC0415
    from penstock.pipeline.errors import ProviderMisconfigured, ProviderUnavailable  # noqa: PLC0415
    from penstock.settings.providers import options_of  # noqa: PLC0415

    card = card_of(settings)
    lacks = missing(card, options_of(settings))
    if lacks:
        told = "; ".join(f"{one.kind}: {one.advice}" for one in lacks)
        raise ProviderMisconfigured(
            f"embedding.model is {card.name}, which cannot be used here yet: {told}; or choose another, see"
            " `penstock models`",
            setting="embedding.model",
        )
    if card.provider == "openai":
        embedder = open_embedder(settings, card.name, card.dimensions, threads=1)
        try:
            with suppress(ProviderUnavailable):
                embedder.check()
        finally:
            embedder.close()


def write_url(settings: Settings, url: str) -> None:
    """Let the command line of this user find the running server; ``""`` says that there is none."""
    path = make_data_dir(settings) / "api.url"
    if url:
        path.write_text(url + "\n", encoding="utf-8")
    else:
        path.unlink(missing_ok=True)
