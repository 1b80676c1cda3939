"""Everything the gateway reads from its environment, once."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from serving.journal.writer import SyncMode

_SECRET_HEX = 64


class SettingsError(Exception):
    """A variable is missing or wrong; the text is one line for an operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    redis_url: str
    cache_redis_url: str
    database_url: str
    home: Path
    cell: str
    node: str
    journal_sync: SyncMode
    key_pepper: bytes
    document_key: bytes
    salt_key: bytes
    engine_key: bytes
    processes: int
    portal_origins: frozenset[str]
    trusted_proxies: frozenset[str]
    drain_seconds: float
    first_token_seconds: float
    idle_seconds: float
    answer_seconds: float
    queue_seconds: float
    quiet_seconds: float
    body_bytes: int
    head_seconds: float
    body_seconds: float
    stall_seconds: float
    failed_keys_per_minute: float
    connections_per_address: int

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def documents(self) -> Path:
        return self.home / "documents"

    @property
    def journal(self) -> Path:
        return self.home / "journal"


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Raises ``SettingsError`` naming the variable."""
    return Settings(
        redis_url=_needed(environment, "REDIS_URL"),
        cache_redis_url=environment.get("TESSERA_CACHE_REDIS_URL") or environment["REDIS_URL"],
        database_url=_needed(environment, "TESSERA_DATABASE_GATEWAY_URL"),
        home=Path(environment.get("TESSERA_HOME") or ".tessera").absolute(),
        cell=environment.get("TESSERA_CELL") or "local",
        node=environment.get("TESSERA_NODE") or socket.gethostname(),
        journal_sync=_sync_mode(environment, "TESSERA_JOURNAL_SYNC"),
        key_pepper=_secret(environment, "TESSERA_KEY_PEPPER"),
        document_key=_secret(environment, "TESSERA_DOCUMENT_KEY"),
        salt_key=_secret(environment, "TESSERA_SALT_KEY"),
        engine_key=_secret(environment, "TESSERA_ENGINE_KEY"),
        processes=int(_number(environment, "TESSERA_GATEWAY_PROCESSES", 2)),
        portal_origins=_list(environment, "TESSERA_PORTAL_ORIGINS"),
        trusted_proxies=_networks(environment, "TESSERA_TRUSTED_PROXIES"),
        drain_seconds=_number(environment, "TESSERA_GATEWAY_DRAIN_SECONDS", 25),
        first_token_seconds=_number(environment, "TESSERA_GATEWAY_FIRST_TOKEN_SECONDS", 120),
        idle_seconds=_number(environment, "TESSERA_GATEWAY_IDLE_SECONDS", 60),
        answer_seconds=_number(environment, "TESSERA_GATEWAY_ANSWER_SECONDS", 600),
        queue_seconds=_number(environment, "TESSERA_GATEWAY_QUEUE_SECONDS", 30),
        quiet_seconds=_number(environment, "TESSERA_GATEWAY_QUIET_SECONDS", 10),
        body_bytes=int(_number(environment, "TESSERA_GATEWAY_BODY_BYTES", 4 * 1024 * 1024)),
        head_seconds=_number(environment, "TESSERA_GATEWAY_HEAD_SECONDS", 10),
        body_seconds=_number(environment, "TESSERA_GATEWAY_BODY_SECONDS", 60),
        stall_seconds=_number(environment, "TESSERA_GATEWAY_STALL_SECONDS", 60),
        failed_keys_per_minute=_number(environment, "TESSERA_GATEWAY_FAILED_KEYS_PER_MINUTE", 60),
        connections_per_address=int(
            _number(environment, "TESSERA_GATEWAY_CONNECTIONS_PER_ADDRESS", 6000)
        ),
    )


def _needed(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise SettingsError(f"{name} is not set.")
    return value


def _sync_mode(environment: Mapping[str, str], name: str) -> SyncMode:
    value = environment.get(name) or SyncMode.INTERVAL
    try:
        return SyncMode(value)
    except ValueError:
        known = " or ".join(f"'{mode}'" for mode in SyncMode)
        raise SettingsError(f"{name} must be {known}, not '{value}'.") from None


def _secret(environment: Mapping[str, str], name: str) -> bytes:
    value = _needed(environment, name)
    try:
        secret = bytes.fromhex(value)
    except ValueError:
        secret = b""
    if len(value) < _SECRET_HEX or not secret:
        raise SettingsError(f"{name} must be at least {_SECRET_HEX} hexadecimal digits.")
    return secret


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    value = environment.get(name)
    if not value:
        return default
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise SettingsError(f"{name} must be a number above zero, not '{value}'.")
    return number


def _list(environment: Mapping[str, str], name: str) -> frozenset[str]:
    return frozenset(item.strip() for item in environment.get(name, "").split(",") if item.strip())


def _networks(environment: Mapping[str, str], name: str) -> frozenset[str]:
    found = _list(environment, name)
    for item in found:
        try:
            ip_network(item)
        except ValueError:
            raise SettingsError(f"{name}: '{item}' is no IP address or network.") from None
    return found
