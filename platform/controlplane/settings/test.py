"""Tests: a PostgreSQL and a Redis of this test session's own, unless the environment names others.

The addresses are decided here, so that settings are whole when they are imported; ``conftest.py`` at the root starts
the servers behind them when the first test needs one. ``RUN_DIR`` is new for each process.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

TEST_RUN_DIR = Path(tempfile.gettempdir()) / f"tessera-test-{os.getpid()}"
TEST_ROLE_PASSWORD = secrets.token_hex(16)


def _role_url(role: str) -> str:
    return f"postgresql://{role}:{TEST_ROLE_PASSWORD}@/test_tessera?host={TEST_RUN_DIR}/sockets"


_redis_socket = f"{TEST_RUN_DIR}/sockets/redis.sock"
# True where the session's own server is to be started.
TEST_STARTS_POSTGRES = not os.environ.get("DATABASE_URL")
TEST_STARTS_REDIS = not os.environ.get("REDIS_URL")

for _name, _value in {
    "DATABASE_URL": _role_url("tessera_app"),
    "TESSERA_DATABASE_OWNER_URL": _role_url("tessera_owner"),
    "TESSERA_DATABASE_GATEWAY_URL": _role_url("tessera_gateway"),
    "TESSERA_DATABASE_SHIPPER_URL": _role_url("tessera_shipper"),
    "REDIS_URL": f"unix://{_redis_socket}?password={TEST_ROLE_PASSWORD}&db=0",
    "CELERY_BROKER_URL": f"redis+socket://:{TEST_ROLE_PASSWORD}@{_redis_socket}?virtual_host=1",
    "SECRET_KEY": "test-" + "0" * 59,
    "TESSERA_KEY_PEPPER": "11" * 32,
    "TESSERA_DOCUMENT_KEY": "22" * 32,
    "TESSERA_SALT_KEY": "33" * 32,
    "TESSERA_ENGINE_KEY": "44" * 32,
    "TESSERA_HOME": f"{TEST_RUN_DIR}/home",
}.items():
    os.environ.setdefault(_name, _value)

from .base import *  # noqa: E402, F403

ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
