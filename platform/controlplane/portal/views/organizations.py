"""Founding an organization, where this installation lets people do so by themselves."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from controlplane.portal.access import may_found, refusal, signed_in
from controlplane.portal.forms import OrganizationForm, refused
from kernel.errors import DomainError, Forbidden
from tenants import services
from tenants.access import Caller
from tenants.models import User


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def new(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    if not may_found(user):
        message = "Organizations are founded by the operators of this installation; ask one."
        return refusal(request, Forbidden(message, rule="signup_closed"))
    if request.method == "POST":
        return _found(request, user, OrganizationForm(request.POST))
    return _page(request, OrganizationForm())


def _found(request: HttpRequest, user: User, form: OrganizationForm) -> HttpResponse:
    if not form.is_valid():
        return _page(request, form, status=422)
    caller = Caller.person(user, address=request.META.get("REMOTE_ADDR") or None)
    try:
        made = services.organization_create(
            caller, owner=user, name=form.cleaned_data["name"], slug=form.cleaned_data["slug"]
        )
    except DomainError as error:
        refused(form, error)
        return _page(request, form, status=error.status)
    return redirect("portal:home", made.slug)


def _page(request: HttpRequest, form: OrganizationForm, status: int = 200) -> HttpResponse:
    return render(request, "portal/organization_new.html", {"form": form}, status=status)
