"""Everything here that asks for a Redis runs against two of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.valkey import THROWAWAY as IN_MEMORY
from supervisor.valkey import ValkeyServer


@pytest.fixture(scope="session", params=["valkey", "redis"])
def redis_url(request: pytest.FixtureRequest, redis_url: str, run_dir: Path) -> Iterator[str]:
    """The session's own server, then the machine's ``redis-server``: an operator may run either."""
    if request.param == "valkey":
        yield redis_url
        return
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed here: the script ran against Valkey only")
    server = ValkeyServer(run_dir / "redis", settings=IN_MEMORY, binary=Path(binary))
    with server.running() as urls:
        yield urls.redis
