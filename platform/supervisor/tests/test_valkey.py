"""The real server from the wheel."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from supervisor.valkey import ValkeyServer


def test_it_asks_for_the_password_and_keeps_what_was_written(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / "valkey")
    with server.running() as urls:
        with redis.Redis.from_url(urls.redis) as client:
            client.set("kept", "42")
        with (
            redis.Redis(unix_socket_path=str(server.socket_path)) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
    with server.running() as again, redis.Redis.from_url(again.redis) as client:
        assert again == urls
        assert client.get("kept") == b"42"


def test_it_listens_on_nothing_but_a_private_socket_and_never_evicts(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / "valkey")
    with server.running() as urls, redis.Redis.from_url(urls.redis) as client:
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert server.socket_path.parent.stat().st_mode & 0o777 == 0o700
    assert (server.folder / "valkey.conf").stat().st_mode & 0o777 == 0o600


def test_a_folder_too_deep_for_a_socket_still_works(tmp_path: Path) -> None:
    with (
        ValkeyServer(tmp_path / ("deep" * 30)).running() as urls,
        redis.Redis.from_url(urls.redis) as client,
    ):
        assert client.ping()
