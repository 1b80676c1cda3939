"""PostgreSQL: one database, one connection per role that Django uses.

``default`` is the application's role, which row-level security binds; ``owner`` runs migrations
only.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

CONNECT_TIMEOUT_SECONDS = 3
STATEMENT_TIMEOUT_SECONDS = 15
LOCK_TIMEOUT_SECONDS = 5
IDLE_IN_TRANSACTION_SECONDS = 60


def database(url: str, *, variable: str, timeouts: bool = True) -> dict[str, Any]:
    """Django's description of the database behind a libpq URL; ``variable`` is named in errors."""
    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError as error:
        raise ImproperlyConfigured(f"{variable} is not a PostgreSQL URL: {error}") from None
    named = {key: str(parts.pop(key, "") or "") for key in ("dbname", "user", "password")}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": named["dbname"] or "tessera",
        "USER": named["user"],
        "PASSWORD": named["password"],
        "HOST": str(parts.pop("host", "") or ""),
        "PORT": str(parts.pop("port", "") or ""),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            **parts,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "tcp_user_timeout": 10_000,
            "options": _server_options(timeouts=timeouts),
        },
    }


def _server_options(*, timeouts: bool) -> str:
    lines = {"lock_timeout": LOCK_TIMEOUT_SECONDS}
    if timeouts:
        lines["statement_timeout"] = STATEMENT_TIMEOUT_SECONDS
        lines["idle_in_transaction_session_timeout"] = IDLE_IN_TRANSACTION_SECONDS
    return " ".join(f"-c {name}={seconds}s" for name, seconds in lines.items())
