"""Where a request came from: the peer, or what trusted proxies say of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network


class Proxies:
    """The peers whose word on a client's address is believed: addresses and networks.

    Raises ``ValueError`` for what is neither.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks = tuple(ip_network(text) for text in texts)
        self.trusts = lru_cache(maxsize=4096)(self._trusts)

    def _trusts(self, text: str) -> bool:
        address = _parsed(text)
        return address is not None and any(address in network for network in self._networks)


def client_address(peer: str, forwarded: bytes | None, proxies: Proxies) -> str:
    """The last address on the way that no trusted proxy vouches for; never a bare header.

    ``forwarded`` is the ``x-forwarded-for`` line: each proxy adds the one before it at the end.
    """
    address = peer
    if forwarded is None:
        return address
    hops = forwarded[-512:].decode("latin-1").split(",")
    while hops and proxies.trusts(address):
        hop = hops.pop().strip()
        if _parsed(hop) is None:
            break
        address = hop
    return address


@lru_cache(maxsize=8192)
def neighbourhood(address: str) -> str:
    """What tells one client from another: an IPv4 address, or an IPv6 /64 (one host has it all)."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, 64), strict=False))
    return address if parsed is None else str(parsed)


@lru_cache(maxsize=8192)  # behind a proxy it is asked with every request
def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
