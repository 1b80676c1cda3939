from __future__ import annotations

import pytest

from serving.gateway.addresses import Proxies, client_address, neighbourhood

PROXIES = Proxies({"10.0.0.1", "10.1.0.0/16", "2001:db8:1::/48"})


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", b"1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", b"6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", b"6.6.6.6, 1.2.3.4, 10.1.9.9", "1.2.3.4"),
        ("10.1.2.3", b"10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", b"1.2.3.4", "1.2.3.4"),
        ("2001:db8:1::5", b"2001:db8:2::9", "2001:db8:2::9"),
        ("10.0.0.2", b"1.2.3.4", "10.0.0.2"),
        ("203.0.113.5", b"10.0.0.1", "203.0.113.5"),
        ("10.0.0.1", b"root\x1b[0m", "10.0.0.1"),
        ("10.0.0.1", b"1.2.3.4, ", "10.0.0.1"),
        ("local", b"1.2.3.4", "local"),
    ],
)
def test_only_trusted_proxies_say_where_a_request_came_from(
    peer: str, forwarded: bytes | None, expected: str
) -> None:
    assert client_address(peer, forwarded, PROXIES) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:0:7:1:2:3:4", "2001:db8:0:7::/64"),
        ("2001:db8:0:7:9::", "2001:db8:0:7::/64"),
        ("local", "local"),
    ],
)
def test_an_ipv6_client_is_told_apart_by_its_network(address: str, expected: str) -> None:
    assert neighbourhood(address) == expected


def test_what_is_no_address_is_no_proxy() -> None:
    with pytest.raises(ValueError, match="ingress"):
        Proxies({"ingress"})
