"""Which URLs may be told of things, and which addresses may be connected to for that. Pure: it resolves nothing.

A URL comes from a tenant, and whoever connects to it stands inside the operator's network: else a tenant could reach
what only this machine can (server-side request forgery).
"""

import ipaddress
from urllib.parse import urlsplit

LONGEST_URL = 2_048
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class InvalidReceiver(ValueError):
    """Raised when nobody may be told at this URL; the message says why, and what to write instead."""


def check_receiver(url: str, *, private: bool) -> None:
    """Return if ``url`` may be told, as far as it says itself. ``private``: http and private addresses are allowed.

    Raises:
        InvalidReceiver: it is none, or leads to where tenants must not lead us.
    """
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidReceiver(f"must be a URL of at most {LONGEST_URL:,} printable ASCII characters")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidReceiver(f"is no URL: {error}") from error
    schemes = ("https", "http") if private else ("https",)
    if parts.scheme not in schemes or not host:
        raise InvalidReceiver(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and name a host")
    if not _is_name(host):
        raise InvalidReceiver("names a host that nobody can have: between its dots stand 1 to 63 characters")
    if "@" in parts.netloc:
        raise InvalidReceiver("must have no user name or password in it: what arrives is signed instead")
    if parts.fragment:
        raise InvalidReceiver("must have no fragment: nobody sends it")
    literal = address_of(host)
    if literal is not None and not private and not is_public(literal):
        raise InvalidReceiver(f"leads to {literal}, which is no public address: set webhooks.private to allow it")


def _is_name(host: str) -> bool:
    try:
        host.encode("idna")  # as whoever resolves it does
    except UnicodeError:
        return False
    return True


def address_of(host: str) -> Address | None:
    """Return the address that ``host`` is, None when it is a name."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Say whether an address is one of the whole internet, those that wrap another one looked into."""
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(wrapped)
        if address in _NAT64_LOCAL or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved
