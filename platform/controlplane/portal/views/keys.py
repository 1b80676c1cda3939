"""API keys: listed, made, rotated, revoked. A secret is in one answer and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.portal import snippets
from controlplane.portal.access import Member, member_page
from controlplane.portal.callable_models import callable_models
from controlplane.portal.forms import KeyForm, RotateForm, refused
from controlplane.portal.playground_key import is_playground_key
from kernel.errors import DomainError
from tenants import selectors, services
from tenants.access import Permission
from tenants.models import ApiKey, KeyEnvironment, Scope


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@member_page(Permission.KEY_READ)
def key_list(request: HttpRequest, member: Member) -> HttpResponse:
    if request.method == "POST":
        return _create(request, member)
    return _list(request, member, _form(member))


@require_POST
@never_cache
@member_page(Permission.KEY_MANAGE)
def rotate(request: HttpRequest, member: Member, key: UUID) -> HttpResponse:
    form = RotateForm(request.POST)
    if not form.is_valid():
        return redirect("portal:keys", member.organization.slug)
    overlap = timedelta(seconds=form.cleaned_data["overlap_seconds"])
    made = services.key_rotate(member.organization.id, key, caller=member.caller, overlap=overlap)
    return _shown_once(request, member, made, replaced=overlap)


@require_POST
@member_page(Permission.KEY_MANAGE)
def revoke(request: HttpRequest, member: Member, key: UUID) -> HttpResponse:
    revoked = services.key_revoke(member.organization.id, key, caller=member.caller)
    messages.success(
        request,
        _("%(name)s is revoked: it stops working within a second.") % {"name": revoked.name},
    )
    return redirect("portal:keys", member.organization.slug)


def _create(request: HttpRequest, member: Member) -> HttpResponse:
    member.caller.require(Permission.KEY_MANAGE)
    form = _form(member, request.POST)
    if not form.is_valid():
        return _list(request, member, form, status=422)
    data = form.cleaned_data
    try:
        made = services.key_create(
            member.organization.id,
            caller=member.caller,
            name=data["name"],
            scopes=[Scope(scope) for scope in data["scopes"]],
            project=data["project"],
            environment=KeyEnvironment(data["environment"]),
            models=data.get("models") or [],
            expires_at=form.expires_at(),
        )
    except DomainError as error:
        refused(form, error)
        return _list(request, member, form, status=error.status)
    return _shown_once(request, member, made)


def _form(member: Member, data: Any = None) -> KeyForm:
    return KeyForm(
        data,
        caller=member.caller,
        projects=selectors.project_list(member.organization.id).order_by("id"),
        models=[model.slug for model in callable_models(member.organization.id)],
    )


def _list(request: HttpRequest, member: Member, form: KeyForm, status: int = 200) -> HttpResponse:
    now = timezone.now()
    keys = [
        (key, _state(key, now))
        for key in selectors.key_list(member.organization.id)
        if key.is_active(now) or not is_playground_key(key)
    ]
    context = {"member": member, "form": form, "keys": keys, "rotate_form": RotateForm()}
    return render(request, "portal/keys.html", context, status=status)


def _shown_once(
    request: HttpRequest, member: Member, made: services.NewKey, replaced: timedelta | None = None
) -> HttpResponse:
    callable_names = [
        model.slug
        for model in callable_models(member.organization.id, project_id=made.key.project_id)
        if not made.key.models or model.slug in made.key.models
    ]
    context = {
        "member": member,
        "key": made.key,
        "secret": made.secret,
        "replaced": replaced,
        "calls_models": Scope.INFERENCE in made.key.scopes,
        "model": callable_names[0] if callable_names else "",
        "snippets": snippets.for_key(
            settings.TESSERA_GATEWAY_URL, made.secret, callable_names[0] if callable_names else ""
        ),
    }
    return render(request, "portal/key_created.html", context)


def _state(key: ApiKey, now: Any) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "active" if key.is_active(now) else "expired"
