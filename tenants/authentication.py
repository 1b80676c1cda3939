"""How the REST API learns who holds the key in ``Authorization``. Sessions are REST framework's own
matter.
"""

from __future__ import annotations

from typing import Any

from django.views.decorators.debug import sensitive_variables
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from tenants import selectors
from tenants.access import Caller

# One sentence for whatever is wrong with a key, so that nothing can be learned by trying.
_REFUSED = "This API key is not valid. Send an active key as 'Authorization: Bearer tsr_...'."


class KeyAuthentication(authentication.BaseAuthentication):
    """``request.user`` stays empty and ``request.auth`` is the key's ``Caller``."""

    @sensitive_variables("text")
    def authenticate(self, request: Request) -> tuple[None, Caller] | None:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        principal = selectors.principal_by_key(text.strip())
        if principal is None or not principal.active:
            raise AuthenticationFailed(_REFUSED, code="invalid_api_key")
        return None, Caller.key(
            principal.key_id,
            organization_id=principal.organization_id,
            project_id=principal.project_id,
            scopes=principal.scopes,
            models=principal.models,
            label=f"key {principal.key_id}",
            address=client_address(request),
        )

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class _KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "tenants.authentication.KeyAuthentication"
    name = "key"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A key of scope `manage`."}


def client_address(request: Request) -> str | None:
    """The peer's address. Headers that claim another one are not believed."""
    return request.META.get("REMOTE_ADDR") or None
