"""A gateway beside the control plane, for what has to reach it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pytest_django import Settings

from serving.gateway.tests.stack import Servers, Stack, stack


@pytest.fixture
def gateway(redis_client: redis.Redis, redis_url: str, settings: Settings) -> Iterator[Stack]:
    """A gateway process on the control plane's own PostgreSQL and Redis; the engine is simulated."""
    with tempfile.TemporaryDirectory(prefix="tessera-") as folder:
        servers = Servers(
            folder=Path(folder),
            database_owner=os.environ["TESSERA_DATABASE_OWNER_URL"],
            database_gateway=os.environ["TESSERA_DATABASE_GATEWAY_URL"],
            redis_url=redis_url,
        )
        with stack(servers, Path(folder)) as made:
            settings.TESSERA_CELL = made.cell
            yield made
