"""The one place that renders errors of the control plane, for the REST API and for pages.

Every error of the API has one shape: ``{"error": {"code", "message", "param", "rule",
"request_id"}}``.
"""

from __future__ import annotations

import sys
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from redis.exceptions import RedisError
from rest_framework import exceptions
from rest_framework.response import Response

from controlplane.logs import current_request_id
from kernel.errors import DomainError, Forbidden, Invalid, NotFound, Unavailable

_RETRY_AFTER_SECONDS = 2
_DATABASE_DOWN = Unavailable(
    "The database does not answer right now; nothing was changed. Try again shortly.",
    code="database_unavailable",
    retry_after_seconds=_RETRY_AFTER_SECONDS,
)
_REDIS_DOWN = Unavailable(
    "Redis does not answer right now; nothing was changed. Try again shortly.",
    code="redis_unavailable",
    retry_after_seconds=_RETRY_AFTER_SECONDS,
)


def error_body(error: DomainError) -> dict[str, Any]:
    return {
        "error": {
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "rule": error.rule,
            "request_id": current_request_id.get(),
        }
    }


def exception_response(error: Exception, _context: dict[str, Any]) -> Response | None:
    """REST framework's exception handler; what it does not know becomes ``server_error``."""
    known = translate(error)
    if known is None:
        return None
    return Response(error_body(known), status=known.status, headers=_headers(error, known))


def translate(error: BaseException | None) -> DomainError | None:  # noqa: PLR0911 - a table
    """Anybody's exception in our vocabulary, or nothing where it is a fault of ours."""
    match error:
        case DomainError():
            return error
        case OperationalError() | InterfaceError():
            return _DATABASE_DOWN
        case RedisError():
            return _REDIS_DOWN
        case Http404():
            return NotFound()
        case PermissionDenied():
            return Forbidden()
        case exceptions.ValidationError():
            return _first_of(error.detail)
        case exceptions.APIException():
            return _refusal(error)
        case _:
            return None


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Django's handler for whatever nobody caught, also above the views; a database that is away is
    not a bug.
    """
    known = translate(sys.exc_info()[1])
    error = known if isinstance(known, Unavailable) else DomainError(code="internal_error")
    return _page_or_json(request, error)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:  # noqa: ARG001
    """Django's handler for addresses that lead nowhere; the names of its arguments are Django's."""
    return _page_or_json(request, NotFound())


def csrf_failure(request: HttpRequest, **_: Any) -> HttpResponseBase:
    error = Forbidden(
        "The CSRF token is missing or wrong. Read it from GET /api/v1/session and send it as "
        "X-CSRFToken; in a browser, reload the page.",
        code="csrf_failed",
    )
    return _page_or_json(request, error)


def _headers(error: Exception, known: DomainError) -> dict[str, str]:
    headers = {}
    if known.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, round(known.retry_after_seconds)))
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    return headers


def _page_or_json(request: HttpRequest, error: DomainError) -> HttpResponseBase:
    headers = _headers(error, error)
    if request.path.startswith(("/api/", "/agent/")):
        return JsonResponse(error_body(error), status=error.status, headers=headers)
    page: HttpResponse = render(request, "error.html", error_body(error), status=error.status)
    for name, value in headers.items():
        page[name] = value
    return page


def _refusal(error: exceptions.APIException) -> DomainError:
    known = DomainError(str(error.detail), code=str(error.get_codes()))
    known.status = error.status_code
    known.retry_after_seconds = getattr(error, "wait", None)
    return known


def _first_of(detail: Any, param: str = "") -> Invalid:
    """The first thing wrong, with the path to the field it is about."""
    while isinstance(detail, dict | list):
        if isinstance(detail, dict):
            name, detail = next(iter(detail.items()))
            param = param if name == "non_field_errors" else f"{param}.{name}".lstrip(".")
        else:
            detail = next((item for item in detail if item), "")
    refusal = Invalid(str(detail), param=param or None, rule=getattr(detail, "code", None))
    if refusal.rule == "unknown_field":
        refusal.code, refusal.status = "unknown_field", 400
    return refusal
