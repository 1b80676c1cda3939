"""What the OpenAPI document says beyond what the views say themselves."""

from __future__ import annotations

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter

from tenants.rest import OrganizationView

_ORGANIZATION = OpenApiParameter(
    "organization",
    description=(
        "Id or short name. A key implies its organization; a session names one unless the person "
        "belongs to exactly one."
    ),
)


class Schema(AutoSchema):
    """Views about an organization all take its name."""

    def get_override_parameters(self) -> list[Any]:
        return [_ORGANIZATION] if isinstance(self.view, OrganizationView) else []


def published_endpoints(endpoints: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The OpenAPI document describes the customers' API only, not what agents and pages use."""
    return [endpoint for endpoint in endpoints if endpoint[0].startswith("/api/v1/")]


def describe_errors(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Every operation may answer with our one shape of error."""
    text = {"type": "string"}
    optional = {"type": "string", "nullable": True}
    fields = {
        "code": text,
        "message": text,
        "param": optional,
        "rule": optional,
        "request_id": text,
    }
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas["Error"] = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "object", "required": list(fields), "properties": fields}},
    }
    answer = {
        "description": "Refused; `code` is stable, `message` is for people.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    for operations in result.get("paths", {}).values():
        for operation in operations.values():
            operation["responses"].setdefault("default", answer)
    return result
