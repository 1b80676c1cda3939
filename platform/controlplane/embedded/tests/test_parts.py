from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from controlplane.embedded.environment import Ports, environments, own_databases, own_redis
from controlplane.embedded.home import SECRET_NAMES, Home
from controlplane.embedded.parts import Installation, stack
from supervisor.parts import Stack
from supervisor.postgres import PostgresServer, PostgresUrls
from supervisor.valkey import ValkeyServer, ValkeyUrls

PORTS = Ports(portal=1, gateway=2, metrics=3, gateway_processes=2)
URLS = PostgresUrls(superuser="s", owner="o", app="a", gateway="g", shipper="h")


def installation(folder: Path) -> Installation:
    home = Home(folder)
    valkey = ValkeyServer(folder / "valkey")
    valkey.prepare()
    return Installation(
        home=home,
        ports=PORTS,
        environments=environments(
            {},
            home=home,
            secrets=dict.fromkeys(SECRET_NAMES, "x"),
            databases=own_databases(URLS),
            redis=own_redis(ValkeyUrls(redis="r", broker="b")),
        ),
        postgres=PostgresServer(folder / "postgres"),
        valkey=valkey,
    )


def test_the_stack_is_one_that_the_supervisor_accepts(tmp_path: Path) -> None:
    found = stack(installation(tmp_path), demo=True, detached=False)
    assert Stack.read(json.loads(found.dump())) == found
    assert [part.name for part in found.parts] == [
        "postgres",
        "valkey",
        "migrate",
        "gateway-0",
        "gateway-1",
        "web",
        "worker",
        "beat",
        "watch",
        "shipper",
        "announce",
    ]


def test_a_server_that_somebody_else_runs_is_not_started(tmp_path: Path) -> None:
    given = dataclasses.replace(installation(tmp_path), postgres=None, valkey=None)
    found = stack(given, demo=False, detached=False)
    names = {part.name: part for part in found.parts}
    assert not {"postgres", "valkey"} & set(names)
    assert names["migrate"].needs == ()
    assert "--seed" not in names["announce"].argv


def test_no_secret_stands_on_a_command_line(tmp_path: Path) -> None:
    given = installation(tmp_path)
    assert given.valkey is not None
    for part in stack(given, demo=True, detached=False).parts:
        assert given.valkey.password not in " ".join(part.argv)


def test_in_the_background_the_announcement_speaks_of_the_background(tmp_path: Path) -> None:
    found = stack(installation(tmp_path), demo=True, detached=True)
    assert not found.console
    assert found.parts[-1].argv[-2:] == ("--seed", "--detached")


def test_a_server_whose_data_is_damaged_says_what_to_do(tmp_path: Path) -> None:
    parts = {one.name: one for one in stack(installation(tmp_path), demo=True, detached=True).parts}
    assert str(tmp_path / "postgres") in parts["postgres"].advice
    assert str(tmp_path / "valkey") in parts["valkey"].advice
