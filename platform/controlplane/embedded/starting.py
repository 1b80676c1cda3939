"""From a folder to a description of everything that is to run in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controlplane.embedded import environment
from controlplane.embedded.environment import Environments, Ports
from controlplane.embedded.home import Home
from controlplane.embedded.parts import Installation, stack
from controlplane.engine.environment import engine_python
from supervisor.folders import write_private
from supervisor.leftovers import claim, end_leftovers
from supervisor.postgres import PostgresServer
from supervisor.valkey import ValkeyServer

SPEC_NAME = "stack.json"


@dataclass(frozen=True)
class Prepared:
    spec: Path
    environments: Environments


def prepare(
    home: Home, given: Mapping[str, str], *, demo: bool, detached: bool, simulator: bool
) -> Prepared:
    """Make what is missing and write down what is to run.

    Raises ``StackRunning`` where a stack runs in this home already.
    """
    home.prepare()
    with claim(home.run):
        end_leftovers(home.run)
        installation = _installation(home, {**given, **_engine(simulator=simulator)})
        described = stack(installation, demo=demo, detached=detached)
        spec = home.run / SPEC_NAME
        write_private(spec, described.dump())
        whole = installation.environments.everything
        write_private(home.environment, json.dumps(whole, indent=1))
        return Prepared(spec, installation.environments)


def _installation(home: Home, given: Mapping[str, str]) -> Installation:
    databases, redis = environment.given_databases(given), environment.given_redis(given)
    postgres = valkey = None
    if databases is None:
        postgres = PostgresServer(home.folder / "postgres", sockets=home.run)
        postgres.prepare()
        databases = environment.own_databases(postgres.urls())
    if redis is None:
        valkey = ValkeyServer(home.folder / "valkey", sockets=home.run)
        valkey.prepare()
        redis = environment.own_redis(valkey.urls())
    environments = environment.environments(
        given, home=home, secrets=home.secrets(), databases=databases, redis=redis
    )
    return Installation(
        home=home,
        ports=Ports.named_by(given),
        environments=environments,
        postgres=postgres,
        valkey=valkey,
    )


def _engine(*, simulator: bool) -> dict[str, str]:
    python = engine_python()
    found = {"TESSERA_ENGINE_PYTHON": str(python)} if python else {}
    return {**found, "TESSERA_SIMULATOR": "1"} if simulator else found
