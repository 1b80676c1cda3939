"""Limits: what they are, what is used of them now, and setting those of projects and keys."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from controlplane.limits import limits_now
from controlplane.portal.access import Member, member_page
from controlplane.portal.forms import LimitsForm, refused
from controlplane.portal.playground_key import is_playground_key
from kernel.errors import DomainError
from tenants import selectors, services
from tenants.access import Permission
from tenants.models import OwnLimits, Quota
from tenants.scope import organization_scope


@require_safe
@member_page(Permission.USAGE_READ, scoped=False)
def limits(request: HttpRequest, member: Member) -> HttpResponse:
    context = _now(member) | {"portal_url": settings.TESSERA_PORTAL_URL}
    if member.caller.can(Permission.LIMIT_MANAGE):
        with organization_scope(member.organization.id):
            keys = selectors.keys_active(member.organization.id)
            limited = {each.bearer.id for each in context["now"].keys}
            context["free_keys"] = [
                key for key in keys if key.id not in limited and not is_playground_key(key)
            ]
    return render(request, "portal/limits.html", context)


@require_safe
@member_page(Permission.USAGE_READ, scoped=False)
def now(request: HttpRequest, member: Member) -> HttpResponse:
    """The meters alone, for the page that looks again every few seconds."""
    return render(request, "portal/limits_now.html", _now(member))


@require_safe
@member_page(Permission.LIMIT_MANAGE)
def choose(request: HttpRequest, member: Member) -> HttpResponse:
    """The key that was chosen from the list leads to its form."""
    key = selectors.as_uuid(request.GET.get("key", ""))
    if key is None:
        return redirect("portal:limits", member.organization.slug)
    return redirect("portal:limits-key", member.organization.slug, key)


@require_http_methods(["GET", "HEAD", "POST"])
@member_page(Permission.LIMIT_MANAGE)
def project(request: HttpRequest, member: Member, project: UUID) -> HttpResponse:
    found = selectors.project_get(member.organization.id, project)
    own = selectors.project_quota(member.organization.id, found.id) or Quota()
    context = {"title": _("Limits of the project “%(name)s”") % {"name": found.name}}

    def save(changes: dict[str, int | None]) -> None:
        services.project_limits_set(
            member.organization.id, found.id, caller=member.caller, limits=changes
        )

    return _form(request, member, own, save, context)


@require_http_methods(["GET", "HEAD", "POST"])
@member_page(Permission.LIMIT_MANAGE)
def key(request: HttpRequest, member: Member, key: UUID) -> HttpResponse:
    found = selectors.key_get(member.organization.id, key)
    context = {
        "title": _("Limits of the key “%(name)s”") % {"name": found.name},
        "key": found,
        "project_limits": selectors.project_quota(member.organization.id, found.project_id),
    }

    def save(changes: dict[str, int | None]) -> None:
        services.key_limits_set(
            member.organization.id, found.id, caller=member.caller, limits=changes
        )

    return _form(request, member, found, save, context)


def _now(member: Member) -> dict[str, Any]:
    return {"member": member, "now": limits_now(member.organization.id, at=timezone.now())}


def _form(
    request: HttpRequest, member: Member, own: OwnLimits, save: Any, context: dict[str, Any]
) -> HttpResponse:
    above = selectors.limits_get(member.organization.id)
    context |= {"member": member, "organization_limits": above}
    if request.method != "POST":
        form = LimitsForm(initial=LimitsForm.shown(own))
        return render(request, "portal/limits_form.html", context | {"form": form})
    form = LimitsForm(request.POST)
    if form.is_valid():
        try:
            save(form.changes())
        except DomainError as error:
            refused(form, error)
        else:
            messages.success(request, _("Saved: gateways hold to it within 5 seconds."))
            return redirect("portal:limits", member.organization.slug)
    return render(request, "portal/limits_form.html", context | {"form": form}, status=422)
