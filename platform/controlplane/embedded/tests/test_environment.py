from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.embedded.environment import (
    DATABASE_NAMES,
    Environments,
    Ports,
    environments,
    given_databases,
    given_redis,
)
from controlplane.embedded.home import SECRET_NAMES, Home
from kernel.errors import Invalid

SECRETS = {name: f"secret {name}" for name in SECRET_NAMES}
DATABASES = {name: f"url of {role}" for role, name in DATABASE_NAMES.items()}
REDIS = {"REDIS_URL": "redis", "CELERY_BROKER_URL": "broker"}
GIVEN = {
    "PATH": "/bin",
    "AWS_SECRET_ACCESS_KEY": "aws",
    "EMAIL_HOST": "mail",
    "TESSERA_GATEWAY_DRAIN_SECONDS": "5",
    "https_proxy": "http://proxy",
}


@pytest.fixture
def told(tmp_path: Path) -> Environments:
    return environments(
        GIVEN, home=Home(tmp_path), secrets=SECRETS, databases=DATABASES, redis=REDIS
    )


def test_each_role_s_url_goes_to_its_own_parts_only(told: Environments) -> None:
    has = {
        "supervisor": set(),
        "control": {"DATABASE_URL"},
        "migrate": {"DATABASE_URL", "TESSERA_DATABASE_OWNER_URL"},
        "gateway": {"TESSERA_DATABASE_GATEWAY_URL"},
        "shipper": {"TESSERA_DATABASE_SHIPPER_URL"},
    }
    for part, names in has.items():
        assert set(DATABASES) & set(getattr(told, part)) == names, part


def test_engines_inherit_no_secret_and_nothing_of_the_caller_s(told: Environments) -> None:
    assert told.supervisor == {"PATH": "/bin", "https_proxy": "http://proxy"}


def test_the_gateway_cannot_sign_sessions_and_the_shipper_has_no_secret(told: Environments) -> None:
    assert set(SECRETS) - set(told.gateway) == {"SECRET_KEY"}
    assert not set(SECRETS) & set(told.shipper)
    assert "AWS_SECRET_ACCESS_KEY" not in told.gateway
    assert told.control["AWS_SECRET_ACCESS_KEY"] == "aws"
    assert told.control["EMAIL_HOST"] == "mail"


def test_what_the_caller_set_of_ours_reaches_the_gateway(told: Environments) -> None:
    assert told.gateway["TESSERA_GATEWAY_DRAIN_SECONDS"] == "5"


def test_an_operator_s_commands_get_everything_but_the_plain(told: Environments) -> None:
    everything = told.everything
    assert {*SECRETS, *DATABASES, *REDIS, "TESSERA_SUPERVISOR_SOCKET"} <= set(everything)
    assert "PATH" not in everything


def test_addresses_follow_the_ports(tmp_path: Path) -> None:
    found = environments(
        {"TESSERA_PORTAL_PORT": "9000", "TESSERA_GATEWAY_URL": "https://api.example"},
        home=Home(tmp_path),
        secrets=SECRETS,
        databases=DATABASES,
        redis=REDIS,
    )
    assert found.control["TESSERA_PORTAL_URL"] == "http://127.0.0.1:9000"
    assert found.control["TESSERA_GATEWAY_URL"] == "https://api.example"
    origins = found.gateway["TESSERA_PORTAL_ORIGINS"].split(",")
    assert origins == ["http://127.0.0.1:9000", "http://localhost:9000"]


@pytest.mark.parametrize("text", ["http", "0", "70000", "-1"])
def test_a_port_that_is_none_is_named(text: str) -> None:
    with pytest.raises(Invalid, match="TESSERA_PORTAL_PORT must be a number from 1 to 65535"):
        Ports.named_by({"TESSERA_PORTAL_PORT": text})


def test_a_given_database_needs_every_role() -> None:
    assert given_databases({"DATABASE_URL": ""}) is None
    assert given_databases(DATABASES) == DATABASES
    with pytest.raises(Invalid, match="DATABASE_URL is set and TESSERA_DATABASE_GATEWAY_URL, "):
        given_databases({"DATABASE_URL": "postgresql://x"})


def test_a_given_redis_brings_the_broker_along() -> None:
    assert given_redis({}) is None
    assert given_redis({"REDIS_URL": "rediss://u:p@host:6379/0"}) == {
        "REDIS_URL": "rediss://u:p@host:6379/0",
        "CELERY_BROKER_URL": "rediss://u:p@host:6379/1",
    }
    given = {"REDIS_URL": "unix:///x", "CELERY_BROKER_URL": "redis+socket:///x?virtual_host=1"}
    assert given_redis(given) == given
    with pytest.raises(Invalid, match="set CELERY_BROKER_URL too"):
        given_redis({"REDIS_URL": "unix:///x"})


def test_two_doors_on_one_port_are_refused() -> None:
    with pytest.raises(Invalid, match="TESSERA_PORTAL_PORT and TESSERA_GATEWAY_PORT are both 81"):
        Ports.named_by({"TESSERA_PORTAL_PORT": "81", "TESSERA_GATEWAY_PORT": "81"})
