"""``/livez``: this process answers. ``/readyz``: and so do PostgreSQL and Redis."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from redis import Redis
from redis.exceptions import RedisError

GetResponse = Callable[[HttpRequest], HttpResponseBase]


class Health:
    """Answers before anything else is looked at: a probe has no session, and calls by address."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path == "/livez":
            return JsonResponse({"status": "ok"})
        if request.path == "/readyz":
            return _readiness()
        return self.get_response(request)


def _readiness() -> JsonResponse:
    parts = {"postgresql": _postgresql_answers(), "redis": _redis_answers()}
    ready = all(parts.values())
    status = "ok" if ready else "unavailable"
    return JsonResponse({"status": status, "parts": parts}, status=200 if ready else 503)


def _postgresql_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        connection.close()
        return False
    return True


def _redis_answers() -> bool:
    client = Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)
    try:
        with client:
            return bool(client.ping())
    except RedisError:
        return False
