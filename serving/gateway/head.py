"""What a request may look like before anybody reads it: its limits and its head. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from serving.gateway.errors import BadRequest, WrongMedia, WrongVersion

_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may take of a process, in bytes, counts and seconds."""

    head_bytes: int = 32 * 1024
    headers: int = 100
    body_bytes: int = 4 * 1024 * 1024
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 75.0
    stall_seconds: float = 60.0  # how long a client may leave a full buffer unread
    connections: int = 10_000
    connections_per_address: int = 10_000
    pipelined: int = 16
    held_bytes: int = 256 * 1024 * 1024  # of bodies on their way, over all connections


@dataclass(slots=True)
class Request:
    """One whole request. Header names are lower case."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    body: bytes
    peer: str


def check_head(version: str, target: bytes, headers: dict[bytes, bytes]) -> None:
    """The rules that llhttp leaves to its users."""
    if version != "1.1":
        raise WrongVersion
    if not target.startswith(b"/"):
        raise BadRequest("The request target must be a path.", rule="http_target")
    if b"upgrade" in headers:
        raise BadRequest("Upgrades are not spoken here.", rule="http_upgrade")
    host = headers.get(b"host")
    if host is None or _HOST.fullmatch(host) is None:
        raise BadRequest("Exactly one valid Host header is needed.", rule="http_host")
    if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        raise BadRequest("Only the transfer encoding 'chunked' is taken.", rule="http_encoding")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise WrongMedia
