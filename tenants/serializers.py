"""What the REST API takes and shows. Input is strict; output is what is listed here."""

from __future__ import annotations

from typing import Any, ClassVar

from django.utils import timezone
from rest_framework import serializers

from tenants import selectors
from tenants.models import (
    ApiKey,
    AuditEvent,
    Billing,
    KeyEnvironment,
    Membership,
    Organization,
    OwnLimits,
    Plan,
    Project,
    Role,
    Scope,
    User,
)
from tenants.rest import StrictSerializer

MOST_MODELS = 100

# Input


class SignIn(StrictSerializer):
    email = serializers.EmailField(max_length=254)
    password = serializers.CharField(max_length=1024, trim_whitespace=False)


class NewOrganization(StrictSerializer):
    name = serializers.CharField(max_length=80)
    slug = serializers.CharField(max_length=40, required=False)


class Renaming(StrictSerializer):
    name = serializers.CharField(max_length=80)


class NewProject(StrictSerializer):
    name = serializers.CharField(max_length=80)
    slug = serializers.CharField(max_length=40, required=False)


class NewMember(StrictSerializer):
    email = serializers.EmailField(max_length=254)
    role = serializers.ChoiceField(Role.choices)


class RoleChange(StrictSerializer):
    role = serializers.ChoiceField(Role.choices)


class NewKeyInput(StrictSerializer):
    name = serializers.CharField(max_length=80)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(Scope.choices), allow_empty=False, max_length=len(Scope)
    )
    project = serializers.CharField(
        max_length=40, required=False, help_text="Id or short name; the first project if absent."
    )
    environment = serializers.ChoiceField(KeyEnvironment.choices, default=KeyEnvironment.LIVE)
    models = serializers.ListField(
        child=serializers.CharField(max_length=80),
        max_length=MOST_MODELS,
        default=list,
        help_text="The only models it may call; none named means all.",
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True)


class Rotation(StrictSerializer):
    overlap_seconds = serializers.IntegerField(
        min_value=0, max_value=7 * 24 * 3600, default=24 * 3600
    )


class LimitChanges(StrictSerializer):
    """Only the limits that are named change; null takes one away."""

    requests_per_minute = serializers.IntegerField(required=False, allow_null=True)
    tokens_per_minute = serializers.IntegerField(required=False, allow_null=True)
    concurrency = serializers.IntegerField(required=False, allow_null=True)
    budget_nano = serializers.IntegerField(
        required=False,
        allow_null=True,
        help_text="Nano-USD (a billionth of a dollar) in a calendar month, UTC.",
    )


# Output


class UserShape(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields: ClassVar = ["id", "email", "name", "is_staff"]


class PlanShape(serializers.ModelSerializer[Plan]):
    class Meta:
        model = Plan
        fields: ClassVar = [
            "code",
            "name",
            "requests_per_minute",
            "tokens_per_minute",
            "concurrency",
            "storage_bytes",
            "tier",
            "weight",
            "billing",
        ]


class LimitsShape(serializers.Serializer[selectors.Limits]):
    requests_per_minute = serializers.IntegerField()
    tokens_per_minute = serializers.IntegerField()
    concurrency = serializers.IntegerField()
    storage_bytes = serializers.IntegerField()
    budget_nano = serializers.IntegerField(
        allow_null=True, help_text="Nano-USD a month; null where none is set or a balance counts."
    )


class OwnLimitsShape(serializers.Serializer[OwnLimits]):
    """Limits of a project's or key's own; null: only those above it count."""

    requests_per_minute = serializers.IntegerField(allow_null=True)
    tokens_per_minute = serializers.IntegerField(allow_null=True)
    concurrency = serializers.IntegerField(allow_null=True)
    budget_nano = serializers.IntegerField(
        allow_null=True, help_text="Nano-USD in a calendar month (UTC), never overrun."
    )


class OrganizationShape(serializers.ModelSerializer[Organization]):
    plan = serializers.CharField(source="plan.code")
    suspended = serializers.BooleanField()
    billing = serializers.ChoiceField(Billing.choices)
    limits = LimitsShape()

    class Meta:
        model = Organization
        fields: ClassVar = [
            "id",
            "name",
            "slug",
            "plan",
            "billing",
            "suspended",
            "limits",
            "created_at",
        ]


class MembershipShape(serializers.Serializer[Any]):
    """One of the caller's organizations; ``role`` is null for a key."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    slug = serializers.CharField()
    role = serializers.ChoiceField(Role.choices, allow_null=True)


class SessionShape(serializers.Serializer[Any]):
    user = UserShape(allow_null=True)
    organizations = MembershipShape(many=True)
    csrf_token = serializers.CharField()


class ProjectShape(serializers.ModelSerializer[Project]):
    class Meta:
        model = Project
        fields: ClassVar = ["id", "name", "slug", "created_at"]


class MemberShape(serializers.ModelSerializer[Membership]):
    user_id = serializers.UUIDField()
    email = serializers.EmailField(source="user.email")
    name = serializers.CharField(source="user.name")

    class Meta:
        model = Membership
        fields: ClassVar = ["id", "user_id", "email", "name", "role", "created_at"]


class KeyShape(serializers.ModelSerializer[ApiKey]):
    """A key without its secret. ``active`` is false once it is revoked or expired."""

    project = serializers.CharField(source="project.slug")
    created_by = serializers.EmailField(source="created_by.email", default=None, allow_null=True)
    active = serializers.SerializerMethodField()

    class Meta:
        model = ApiKey
        fields: ClassVar = [
            "id",
            "name",
            "project",
            "environment",
            "last4",
            "scopes",
            "models",
            "active",
            "created_by",
            "created_at",
            "expires_at",
            "revoked_at",
            "last_used_at",
        ]

    def get_active(self, key: ApiKey) -> bool:
        return key.is_active(timezone.now())


class NewKeyShape(KeyShape):
    secret = serializers.CharField(help_text="The key itself. It is not kept: store it now.")

    class Meta(KeyShape.Meta):
        fields: ClassVar = [*KeyShape.Meta.fields, "secret"]


class AuditShape(serializers.ModelSerializer[AuditEvent]):
    class Meta:
        model = AuditEvent
        fields: ClassVar = [
            "id",
            "created_at",
            "actor_type",
            "actor_id",
            "actor_label",
            "verb",
            "target_type",
            "target_id",
            "address",
            "detail",
        ]


def organization(found: Organization) -> dict[str, Any]:
    limits = selectors.limits_get(found.id)
    return {
        "id": str(found.id),
        "name": found.name,
        "slug": found.slug,
        "plan": found.plan.code,
        "billing": found.billing_mode.value,
        "suspended": found.suspended_at is not None,
        "limits": LimitsShape(limits).data,
        "created_at": found.created_at,
    }


def organization_with_role(found: Organization, role: str | None) -> dict[str, Any]:
    return {"id": str(found.id), "name": found.name, "slug": found.slug, "role": role}
