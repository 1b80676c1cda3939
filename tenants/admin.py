"""Operators' view of every object. Changes go through the same services as everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm

from kernel.errors import DomainError
from tenants import services
from tenants.access import Caller
from tenants.models import (
    ApiKey,
    AuditEvent,
    Billing,
    Membership,
    Organization,
    Plan,
    Project,
    Quota,
    Role,
    User,
)

admin.site.unregister(Group)  # roles are in memberships


class ServiceAdmin(ModelAdmin):
    """A page whose writes are services: a refusal of theirs is shown, and nothing changes."""

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return _shown(request, super().changeform_view, *args, **kwargs)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return _shown(request, super().delete_view, *args, **kwargs)

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return _shown(request, super().changelist_view, *args, **kwargs)


class ReadOnlyAdmin(ServiceAdmin):
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class NewOrganizationForm(forms.ModelForm):  # type: ignore[type-arg]
    owner = forms.ModelChoiceField(User.objects.all())

    class Meta:
        model = Organization
        fields: ClassVar = ["name", "slug", "plan"]


@admin.register(Organization)
class OrganizationAdmin(ServiceAdmin):
    list_display: ClassVar = ["slug", "name", "plan", "billing", "suspended_at", "created_at"]
    list_filter: ClassVar = ["plan", "billing"]
    list_select_related: ClassVar = ["plan"]
    search_fields: ClassVar = ["slug", "name", "id"]
    actions: ClassVar = ["suspend", "resume"]

    def get_form(
        self,
        request: HttpRequest,
        obj: Model | None = None,
        change: bool = False,  # noqa: FBT001, FBT002 - Django's signature
        **kwargs: Any,
    ) -> Any:
        if obj is None:
            kwargs["form"] = NewOrganizationForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        if obj is None:
            return ["name", "slug", "plan", "owner"]
        return ["id", "name", "slug", "plan", "billing", "suspended_at", "created_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [] if obj is None else ["id", "slug", "suspended_at", "created_at"]

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Organization, form: Any, change: bool) -> None:  # noqa: FBT001
        caller = operator(request)
        if not change:
            made = services.organization_create(
                caller,
                name=obj.name,
                slug=obj.slug,
                plan=obj.plan.code,
                owner=form.cleaned_data["owner"],
            )
            obj.pk = made.pk
            return
        if "name" in form.changed_data:
            services.organization_rename(obj.pk, caller=caller, name=obj.name)
        if "plan" in form.changed_data:
            services.plan_set(obj.pk, caller=caller, plan=obj.plan.code)
        if "billing" in form.changed_data:
            billing = Billing(obj.billing) if obj.billing else None
            services.billing_set(obj.pk, caller=caller, billing=billing)

    @admin.action(description="Suspend: no key works, nothing is deleted")
    def suspend(self, request: HttpRequest, queryset: QuerySet[Organization]) -> None:
        for organization in queryset:
            services.organization_suspend(organization.pk, caller=operator(request))

    @admin.action(description="Resume: keys work again")
    def resume(self, request: HttpRequest, queryset: QuerySet[Organization]) -> None:
        for organization in queryset:
            services.organization_resume(organization.pk, caller=operator(request))


@admin.register(Project)
class ProjectAdmin(ServiceAdmin):
    list_display: ClassVar = ["slug", "name", "organization", "created_at"]
    list_select_related: ClassVar = ["organization"]
    search_fields: ClassVar = ["slug", "name", "organization__slug", "id"]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [] if obj is None else ["organization", "slug"]

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return ["organization", "name", "slug"]

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Project, form: Any, change: bool) -> None:  # noqa: FBT001
        caller = operator(request)
        if change:
            services.project_rename(obj.organization_id, obj.pk, caller=caller, name=obj.name)
            return
        made = services.project_create(
            obj.organization_id, caller=caller, name=obj.name, slug=obj.slug
        )
        obj.pk = made.pk


@admin.register(Quota)
class QuotaAdmin(ServiceAdmin):
    list_display: ClassVar = ["organization", "project", *services.QUOTA_FIELDS]
    list_select_related: ClassVar = ["organization", "project"]
    search_fields: ClassVar = ["organization__slug"]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [] if obj is None else ["organization", "project"]

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Quota, form: Any, change: bool) -> None:  # noqa: FBT001
        saved = services.quota_set(
            obj.organization_id,
            caller=operator(request),
            project_id=obj.project_id,
            limits={field: getattr(obj, field) for field in services.QUOTA_FIELDS},
        )
        obj.pk = saved.pk


@admin.register(Membership)
class MembershipAdmin(ServiceAdmin):
    list_display: ClassVar = ["user", "organization", "role", "created_at"]
    list_filter: ClassVar = ["role"]
    list_select_related: ClassVar = ["user", "organization"]
    search_fields: ClassVar = ["user__email", "organization__slug"]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [] if obj is None else ["organization", "user"]

    def save_model(self, request: HttpRequest, obj: Membership, form: Any, change: bool) -> None:  # noqa: FBT001
        caller, role = operator(request), Role(obj.role)
        if change:
            services.member_role_change(obj.organization_id, obj.pk, caller=caller, role=role)
            return
        made = services.member_add(
            obj.organization_id, caller=caller, email=obj.user.email, role=role
        )
        obj.pk = made.pk

    def delete_model(self, request: HttpRequest, obj: Membership) -> None:
        services.member_remove(obj.organization_id, obj.pk, caller=operator(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Membership]) -> None:
        for member in queryset:
            self.delete_model(request, member)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display: ClassVar = [
        "name",
        "last4",
        "organization",
        "project",
        "environment",
        "scopes",
        "expires_at",
        "revoked_at",
        "last_used_at",
    ]
    list_filter: ClassVar = ["environment"]
    list_select_related: ClassVar = ["organization", "project"]
    search_fields: ClassVar = ["id", "name", "last4", "organization__slug"]
    exclude: ClassVar = ["mac"]
    actions: ClassVar = ["revoke"]

    @admin.action(description="Revoke: gateways know within a second")
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        for key in queryset:
            services.key_revoke(key.organization_id, key.pk, caller=operator(request))


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display: ClassVar = [
        "created_at",
        "actor_label",
        "actor_type",
        "verb",
        "target_type",
        "target_id",
        "organization",
        "address",
    ]
    list_filter: ClassVar = ["actor_type", "verb"]
    list_select_related: ClassVar = ["organization"]
    search_fields: ClassVar = ["actor_label", "target_id", "organization__slug"]


@admin.register(Plan)
class PlanAdmin(ServiceAdmin):
    list_display: ClassVar = [
        "code",
        "name",
        "tier",
        "weight",
        "billing",
        *services.PLAN_FIELDS,
    ]

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Plan, form: Any, change: bool) -> None:  # noqa: FBT001
        services.plan_save(obj, caller=operator(request))


class NewUserForm(forms.ModelForm):  # type: ignore[type-arg]
    """Without a password: the person sets one by mail."""

    class Meta:
        model = User
        fields: ClassVar = ["email", "name"]

    def clean_email(self) -> str:
        return str(self.cleaned_data["email"]).lower()


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg]
    form = UserChangeForm
    add_form = NewUserForm
    change_password_form = AdminPasswordChangeForm
    ordering = ["email"]
    list_display = ["email", "name", "is_staff", "is_active", "last_login"]
    list_filter = ["is_staff", "is_active"]
    search_fields = ["email", "name", "id"]
    readonly_fields = ["last_login", "date_joined"]
    filter_horizontal = []
    fieldsets = [
        (None, {"fields": ["email", "name", "password"]}),
        ("Access", {"fields": ["is_active", "is_staff", "is_superuser"]}),
        ("Times", {"fields": ["last_login", "date_joined"]}),
    ]
    add_fieldsets = [(None, {"fields": ["email", "name"]})]

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:  # noqa: FBT001
        services.user_save(obj, caller=operator(request))

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def operator(request: HttpRequest) -> Caller:
    """Whoever is signed in to the admin site, as services want to know them."""
    assert isinstance(request.user, User)
    return Caller.operator(request.user, address=request.META.get("REMOTE_ADDR") or None)


def _shown(
    request: HttpRequest, view: Callable[..., HttpResponse], *args: Any, **kwargs: Any
) -> HttpResponse:
    """Run a page; what a service refuses is said on the page it came from."""
    try:
        return view(request, *args, **kwargs)
    except DomainError as error:
        messages.error(request, error.message)
        return redirect(request.get_full_path())
