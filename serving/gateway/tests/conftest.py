from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from serving.gateway.tests.stack import Servers, Stack, servers, stack


@pytest.fixture(scope="session")
def gateway_servers() -> Iterator[Servers]:
    """PostgreSQL and Redis that no test of the session takes down."""
    with tempfile.TemporaryDirectory(prefix="tessera-") as folder, servers(Path(folder)) as made:
        yield made


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path: it holds Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="tessera-") as folder:
        yield Path(folder)


@pytest.fixture
def bare(gateway_servers: Servers, home: Path) -> Iterator[Stack]:
    """Nothing started yet."""
    with stack(gateway_servers, home) as made:
        yield made


@pytest.fixture
def served(bare: Stack) -> Stack:
    """Two tenants, one engine, one gateway process."""
    bare.tenant("support")
    bare.tenant("legal")
    bare.engine()
    bare.serve()
    return bare


@pytest.fixture(scope="module")
def shared(gateway_servers: Servers) -> Iterator[Stack]:
    """The same for all tests of a module that leave no trace that the next one minds."""
    with (
        tempfile.TemporaryDirectory(prefix="tessera-") as folder,
        stack(gateway_servers, Path(folder)) as made,
    ):
        made.tenant("support")
        made.tenant("legal")
        made.engine()
        made.serve()
        yield made


@pytest.fixture
def client(shared: Stack) -> Iterator[openai.OpenAI]:
    """The official client with the first tenant's key."""
    with openai.OpenAI(
        api_key=shared.tenants[0].key, base_url=f"{shared.url}/v1", max_retries=0
    ) as made:
        yield made
