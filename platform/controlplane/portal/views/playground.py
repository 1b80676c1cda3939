"""The playground: the page, and the short-lived key with which it calls the gateway itself."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from controlplane.portal.access import Member, member_page
from controlplane.portal.callable_models import callable_models
from controlplane.portal.playground_key import playground_key_issue
from kernel.errors import NotFound
from serving.models import DeploymentStatus
from tenants.access import Permission


@require_safe
@member_page(Permission.INFERENCE)
def playground(request: HttpRequest, member: Member) -> HttpResponse:
    models = callable_models(member.organization.id)
    asked = request.GET.get("model", "")
    context = {
        "member": member,
        "models": [(each, each.status == DeploymentStatus.READY) for each in models],
        "chosen": asked or (models[0].slug if models else ""),
        "gateway_url": settings.TESSERA_GATEWAY_URL.rstrip("/"),
        "portal_url": settings.TESSERA_PORTAL_URL,
    }
    return render(request, "portal/playground.html", context)


@require_POST
@never_cache
@member_page(Permission.INFERENCE)
def key(request: HttpRequest, member: Member) -> HttpResponse:
    """A key for the project of the model in the form; whatever came before it is revoked."""
    name = request.POST.get("model", "")
    model = next(
        (each for each in callable_models(member.organization.id) if each.slug == name), None
    )
    if model is None:
        raise NotFound("There is no deployment by that name.", param="model")
    made = playground_key_issue(member, model.project_id)
    assert made.key.expires_at is not None
    return JsonResponse({"key": made.secret, "expires_at": made.key.expires_at.timestamp()})
