"""Posts to a URL that a tenant chose: to checked addresses only, briefly, and without reading the answer's body."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from penstock.pipeline.receivers import Address, InvalidReceiver, check_receiver, is_public

MOST_ADDRESSES = 3
USER_AGENT = "Penstock-Webhooks/1"


@dataclass(frozen=True)
class Posted:
    """How one attempt ended. ``status`` None: there was no answer, because of ``error``."""

    status: int | None
    error: str | None = None
    retry_after_s: float | None = None

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


async def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    private: bool,
    timeout_s: float,
    context: ssl.SSLContext | None = None,
) -> Posted:
    """Post once. Whatever goes wrong is in the answer: nothing is raised, and nothing takes longer than ``timeout_s``.

    The name is resolved once and the connection goes to the address that was checked, so that no second answer of the
    DNS can lead elsewhere. Redirects are not followed; proxies of the environment are not asked.
    """
    try:
        check_receiver(url, private=private)
        async with asyncio.timeout(timeout_s):
            addresses = await _resolved(httpx.URL(url), private=private)
            verify = context if context is not None else url.startswith("https")
            async with httpx.AsyncClient(
                trust_env=False, follow_redirects=False, verify=verify, timeout=timeout_s
            ) as client:
                return await _post(client, httpx.URL(url), addresses, body, headers)
    except InvalidReceiver as error:
        return Posted(None, f"the URL {error}")
    except TimeoutError:
        return Posted(None, f"no answer within {timeout_s:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Posted(None, f"no answer: {error or type(error).__name__}")


async def _post(
    client: httpx.AsyncClient, url: httpx.URL, addresses: Sequence[Address], body: bytes, headers: Mapping[str, str]
) -> Posted:
    named = {**headers, "Host": url.netloc.decode(), "User-Agent": USER_AGENT, "Connection": "close"}
    for address in addresses[:-1]:
        try:
            return await _ask(client, url, address, body, named)
        except httpx.ConnectError:
            continue
    return await _ask(client, url, addresses[-1], body, named)


async def _resolved(url: httpx.URL, *, private: bool) -> Sequence[Address]:
    loop = asyncio.get_running_loop()
    port = url.port or (443 if url.scheme == "https" else 80)
    found = await loop.getaddrinfo(url.raw_host.decode(), port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not private and not all(map(is_public, addresses)):
        # Which one is not said: what names inside stand for is no tenant's business.
        raise InvalidReceiver("leads to what is no public address: set webhooks.private to allow it")
    return list(dict.fromkeys(addresses))[:MOST_ADDRESSES]


async def _ask(
    client: httpx.AsyncClient, url: httpx.URL, address: Address, body: bytes, headers: Mapping[str, str]
) -> Posted:
    # The certificate is checked against the name, not against the address that is connected to.
    options = {"sni_hostname": url.raw_host.decode()} if url.scheme == "https" else {}
    place = url.copy_with(host=str(address))
    async with client.stream("POST", place, content=body, headers=dict(headers), extensions=options) as response:
        if 300 <= response.status_code < 400:
            return Posted(response.status_code, "it redirects, and redirects are not followed: correct the URL")
        if not response.is_success:
            wish_s = _seconds(response.headers.get("retry-after"))
            return Posted(response.status_code, f"it answered {response.status_code}", wish_s)
        return Posted(response.status_code)


def _seconds(said: str | None) -> float | None:
    return float(said) if said and said.isascii() and said.isdigit() else None
