"""Finds the server, the key and the tenant, and opens the client. Only `doctor` opens the catalog itself."""

from typing import TYPE_CHECKING

from .exits import UsageError

if TYPE_CHECKING:
    from penstock.client import Penstock
    from penstock.settings.model import Settings


def connect(url: str | None, key: str | None, tenant: str) -> "Penstock":
    """Return a client. What is not given is looked up in the data directory of this machine's installation.

    Raises:
        UsageError: there is no key, or the URL is none.
        InvalidSettings: the settings had to be read and are wrong.
    """
    from penstock.client import Penstock

    if url is not None:
        check_url(url)
    if url is None or key is None:
        from penstock.settings.sources import load

        settings = load()
        url = url or _local_url(settings)
        key = key or _local_key(settings)
    return Penstock(url, key, tenant)


def check_url(url: str) -> None:
    """Check what was given as --url or PENSTOCK_URL.

    Raises:
        UsageError: it is no URL of a server.
    """
    from penstock.settings.urls import is_http_url

    if not is_http_url(url):
        raise UsageError(f"--url {url}: not a URL of a server; write one such as http://127.0.0.1:7700")


def _local_url(settings: "Settings") -> str:
    try:
        return (settings.data_dir / "api.url").read_text(encoding="utf-8").strip()
    except OSError:
        return f"http://127.0.0.1:{settings.api.port}"


def _local_key(settings: "Settings") -> str:
    from penstock.settings.keys import local_key

    key = local_key(settings)
    if key is None:
        raise UsageError(
            f"no API key: give one with --key or PENSTOCK_API_KEY. None is kept in {settings.data_dir}: "
            "start an installation there with `penstock up`, or name its directory with PENSTOCK_DATA_DIR"
        )
    return key
