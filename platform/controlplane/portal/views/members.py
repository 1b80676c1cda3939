"""The people of an organization and their roles."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.portal.access import Member, member_page
from controlplane.portal.forms import MemberForm, refused, role_choices
from kernel.errors import DomainError
from tenants import selectors, services
from tenants.access import Permission
from tenants.models import Role


@require_http_methods(["GET", "HEAD", "POST"])
@member_page(Permission.MEMBER_READ)
def members(request: HttpRequest, member: Member) -> HttpResponse:
    if request.method == "POST":
        return _add(request, member)
    return _list(request, member, MemberForm(caller=member.caller))


@require_POST
@member_page(Permission.MEMBER_MANAGE)
def role(request: HttpRequest, member: Member, membership: UUID) -> HttpResponse:
    wanted = request.POST.get("role", "")
    if wanted not in Role.values:
        return redirect("portal:members", member.organization.slug)
    return _changed(
        request,
        member,
        lambda: services.member_role_change(
            member.organization.id, membership, caller=member.caller, role=Role(wanted)
        ),
        _("The role is changed; it holds from the next request on."),
    )


@require_POST
@member_page(Permission.MEMBER_READ)
def remove(request: HttpRequest, member: Member, membership: UUID) -> HttpResponse:
    """Take somebody's membership away, or leave: the service knows who may."""
    return _changed(
        request,
        member,
        lambda: services.member_remove(member.organization.id, membership, caller=member.caller),
        _("The membership has ended. Keys that were made stay with the organization."),
    )


def _add(request: HttpRequest, member: Member) -> HttpResponse:
    member.caller.require(Permission.MEMBER_MANAGE)
    form = MemberForm(request.POST, caller=member.caller)
    if not form.is_valid():
        return _list(request, member, form, status=422)
    email = form.cleaned_data["email"]
    try:
        services.member_add(
            member.organization.id,
            caller=member.caller,
            email=email,
            role=Role(form.cleaned_data["role"]),
        )
    except DomainError as error:
        refused(form, error)
        return _list(request, member, form, status=error.status)
    messages.success(
        request,
        _("%(email)s is a member. A first password is set under “Forgot your password?”.")
        % {"email": email},
    )
    return redirect("portal:members", member.organization.slug)


def _changed(
    request: HttpRequest, member: Member, change: Callable[[], object], done: str
) -> HttpResponse:
    """Carry a change out and say what came of it on the list."""
    try:
        change()
    except DomainError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, done)
    if not selectors.member_list(member.organization.id).filter(user=member.user).exists():
        return redirect("portal:start")
    return redirect("portal:members", member.organization.slug)


def _list(
    request: HttpRequest, member: Member, form: MemberForm, status: int = 200
) -> HttpResponse:
    context = {
        "member": member,
        "form": form,
        "people": selectors.member_list(member.organization.id).order_by("created_at"),
        "roles": role_choices(member.caller),
        "grantable": {role.value for role in member.caller.roles},
    }
    return render(request, "portal/members.html", context, status=status)
