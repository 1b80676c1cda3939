"""Before and beside an organization: where to go after signing in, and how pages look."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST, require_safe

from controlplane.portal.access import may_found, signed_in
from controlplane.portal.themes import THEME_COOKIE, THEMES
from tenants import selectors

_YEAR_SECONDS = 365 * 24 * 3600


@require_safe
@login_required
def start(request: HttpRequest) -> HttpResponse:
    """To the first organization; whoever belongs to none learns what to do."""
    user = signed_in(request)
    memberships = selectors.membership_list_of_user(user)
    if memberships:
        return redirect("portal:home", memberships[0].organization.slug)
    return render(request, "portal/nowhere.html", {"may_found": may_found(user)})


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Keep the colour scheme in a cookie, so that the first paint has it already."""
    wanted = request.POST.get("next", "/")
    safe = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, request.is_secure())
    response = redirect(wanted if safe else "/")
    chosen = request.POST.get("theme", "")
    if chosen in THEMES:
        response.set_cookie(
            THEME_COOKIE,
            chosen,
            max_age=_YEAR_SECONDS,
            secure=request.is_secure(),
            httponly=True,
            samesite="Lax",
        )
    else:
        response.delete_cookie(THEME_COOKIE, samesite="Lax")
    return response
