"""A database or a Redis that is away is said in words, with the time to come back, and nothing hangs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from kernel.keys import key_new

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def database_away() -> Iterator[None]:
    """Nothing listens where the database was."""
    host = connection.settings_dict["HOST"]
    connection.close()
    connection.settings_dict["HOST"] = "/nowhere"
    yield
    connection.close()
    connection.settings_dict["HOST"] = host


@pytest.fixture
def quiet_client() -> APIClient:
    return APIClient(raise_request_exception=False)


def test_the_api_says_503_and_when_to_return(database_away: None, quiet_client: APIClient) -> None:
    key = key_new("live")
    quiet_client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    answer = quiet_client.get("/api/v1/keys")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    error = answer.json()["error"]
    assert error["code"] == "database_unavailable"
    assert error["request_id"] == answer.headers["X-Request-Id"]
    assert "/nowhere" not in answer.text
    assert key not in answer.text


def test_the_session_of_a_page_cannot_be_read_either(database_away: None) -> None:
    client = Client(raise_request_exception=False)
    client.cookies["tessera_session"] = "a" * 32
    answer = client.get("/admin/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_health_tells_alive_from_ready(database_away: None) -> None:
    assert Client().get("/livez").status_code == 200
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["parts"] == {"postgresql": False, "redis": True}


def test_redis_away_is_not_ready(settings: Settings) -> None:
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["parts"]["redis"]) == (503, False)


def test_a_probe_by_address_is_answered() -> None:
    assert Client().get("/livez", headers={"host": "10.1.2.3:8000"}).status_code == 200
    assert Client().get("/readyz", headers={"host": "10.1.2.3:8000"}).status_code == 200


def test_the_database_is_back_without_a_restart(quiet_client: APIClient) -> None:
    host = connection.settings_dict["HOST"]
    connection.close()
    connection.settings_dict["HOST"] = "/nowhere"
    assert Client().get("/readyz").status_code == 503
    connection.settings_dict["HOST"] = host
    assert Client().get("/readyz").status_code == 200


def test_no_statement_runs_for_ever() -> None:
    with connection.cursor() as cursor:
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            cursor.execute(f"SHOW {name}")
            assert cursor.fetchone() not in {("0",), None}
