"""What happens around every request of the control plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.template.response import SimpleTemplateResponse

from controlplane.logs import current_request_id
from kernel.ids import request_id
from tenants.scope import platform_scope

GetResponse = Callable[[HttpRequest], HttpResponseBase]
View = Callable[..., HttpResponseBase]

_POLICY = {
    "default-src": "'self'",
    "img-src": "'self' data:",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
# The admin's theme and the API reference are others' code, written for a page that trusts itself.
_RELAXED = _POLICY | {
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src": "'self' 'unsafe-inline'",
    "worker-src": "'self' blob:",
}
_RELAXED_NAMESPACES = frozenset({"admin", "reference"})


class RequestIdentity:
    """Gives a request its id, names it in the log and in ``x-request-id``. A client's own id is not
    taken.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        identity = request_id()
        # Not taken back at the end: Django logs the answer after the last middleware is done.
        current_request_id.set(identity)
        response = self.get_response(request)
        response["X-Request-Id"] = identity
        return response


class ContentSecurityPolicy:
    """Scripts, styles and connections come from this origin only."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        policy = _RELAXED if _namespaces(request) & _RELAXED_NAMESPACES else _POLICY
        # The playground talks to the gateway, which has an origin of its own.
        gateway = urlsplit(settings.TESSERA_GATEWAY_URL)
        connect = f"'self' {gateway.scheme}://{gateway.netloc}"
        response.setdefault("Content-Security-Policy", _header({**policy, "connect-src": connect}))
        return response


class AdminScope:
    """Operators' pages see every organization. Nothing else does without saying so."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: View, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        if "admin" not in _namespaces(request):
            return None
        with platform_scope():
            response = view(request, *args, **kwargs)
            if isinstance(response, SimpleTemplateResponse):
                response.render()
        return response


def _namespaces(request: HttpRequest) -> set[str]:
    match = request.resolver_match
    return set(match.namespaces) if match else set()


def _header(policy: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in policy.items())
