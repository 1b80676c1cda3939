from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from controlplane.celery import app
from controlplane.settings import environment
from controlplane.settings.databases import database
from controlplane.settings.mail import mail_server
from tenants.models import User

SECRETS = {
    "SECRET_KEY": "a" * 64,
    "TESSERA_KEY_PEPPER": "b" * 64,
    "TESSERA_DOCUMENT_KEY": "c" * 64,
    "TESSERA_SALT_KEY": "d" * 64,
    "TESSERA_ENGINE_KEY": "e" * 64,
}


def _production(program: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**inherited, "DJANGO_SETTINGS_MODULE": "controlplane.settings.prod", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("missing", SECRETS)
def test_production_stops_at_a_missing_secret_and_names_it(missing: str) -> None:
    given = {name: value for name, value in SECRETS.items() if name != missing}
    done = _production("from django.conf import settings; settings.DEBUG", **given)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert f"Set {missing} in the environment" in last
    assert "make up" in last


@pytest.mark.parametrize("value", ["abcd", "xyz" * 30, "a" * 63])
def test_production_stops_at_a_weak_key_without_showing_it(value: str) -> None:
    given = {**SECRETS, "TESSERA_KEY_PEPPER": value}
    done = _production("from django.conf import settings; settings.DEBUG", **given)
    last = done.stderr.strip().splitlines()[-1]
    assert "TESSERA_KEY_PEPPER must be 32 bytes or more" in last
    assert value not in last


def test_production_over_https_ties_cookies_to_the_host() -> None:
    program = (
        "from django.conf import settings as s;"
        "print(s.DEBUG, s.SESSION_COOKIE_NAME, s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE,"
        " s.SECURE_HSTS_SECONDS > 0, s.ALLOWED_HOSTS[0])"
    )
    done = _production(program, **SECRETS, TESSERA_PORTAL_URL="https://tessera.example.com")
    assert done.stdout.split() == [
        "False",
        "__Host-tessera_session",
        "True",
        "True",
        "True",
        "tessera.example.com",
    ]


def test_one_class_of_the_project_costs_no_celery() -> None:
    done = _production("import controlplane, sys; print('celery' in sys.modules)")
    assert done.stdout.strip() == "False"


def test_celery_takes_json_only() -> None:
    assert list(app.conf.accept_content) == ["json"]
    assert (app.conf.task_serializer, app.conf.result_serializer) == ("json", "json")
    assert app.conf.task_ignore_result


def test_every_scheduled_task_exists() -> None:
    app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert scheduled <= set(app.tasks)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://app:p%40ss@/tessera?host=/run/sockets",
            {"NAME": "tessera", "USER": "app", "PASSWORD": "p@ss", "HOST": "/run/sockets"},
        ),
        (
            "postgres://app:pw@db.example.com:6432/prod?sslmode=verify-full",
            {"NAME": "prod", "HOST": "db.example.com", "PORT": "6432"},
        ),
    ],
)
def test_a_database_url_is_understood(url: str, expected: dict[str, Any]) -> None:
    found = database(url, variable="DATABASE_URL")
    assert {name: found[name] for name in expected} == expected


def test_what_a_url_says_besides_is_kept() -> None:
    found = database("postgresql://a@h/d?sslmode=verify-full", variable="DATABASE_URL")
    assert found["OPTIONS"]["sslmode"] == "verify-full"


def test_connecting_does_not_take_for_ever() -> None:
    assert database("postgresql://a@h/d", variable="X")["OPTIONS"]["connect_timeout"] <= 5


def test_a_wrong_database_url_names_its_variable() -> None:
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL is not a PostgreSQL URL"):
        database("mysql://x/y", variable="DATABASE_URL")


def test_a_number_that_is_none_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_PORTAL_PORT", "eighty")
    with pytest.raises(ImproperlyConfigured, match="TESSERA_PORTAL_PORT"):
        environment.number("TESSERA_PORTAL_PORT", 8000)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", {"EMAIL_FILE_PATH": "/home/mail"}),
        (
            "smtp://me%40x:p%2Fw@mail.example.com",
            {
                "EMAIL_HOST": "mail.example.com",
                "EMAIL_PORT": 587,
                "EMAIL_HOST_USER": "me@x",
                "EMAIL_HOST_PASSWORD": "p/w",
                "EMAIL_USE_TLS": True,
                "EMAIL_USE_SSL": False,
            },
        ),
        ("smtp://localhost:25?tls=0", {"EMAIL_PORT": 25, "EMAIL_USE_TLS": False}),
        ("smtps://h", {"EMAIL_PORT": 465, "EMAIL_USE_TLS": False, "EMAIL_USE_SSL": True}),
    ],
)
def test_a_mail_server_is_understood(url: str, expected: dict[str, Any]) -> None:
    found = mail_server(url, folder=Path("/home/mail"))
    assert {name: found[name] for name in expected} == expected


def test_a_wrong_mail_server_names_its_variable() -> None:
    with pytest.raises(ImproperlyConfigured, match="EMAIL_URL"):
        mail_server("mail.example.com", folder=Path("/home/mail"))


@pytest.mark.django_db
def test_every_answer_carries_the_protecting_headers() -> None:
    answer = Client().get("/accounts/login/", headers={"X-Request-Id": "mine\r\nX: y"})
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["X-Request-Id"].startswith("req_")


@pytest.mark.django_db
def test_accounts_are_not_for_everybody() -> None:
    answer = Client().post(
        "/accounts/signup/",
        {"email": "new@example.com", "password1": "x" * 20, "password2": "x" * 20},
    )
    assert answer.status_code in {200, 403}
    assert not User.objects.exists()
