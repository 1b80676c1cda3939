"""Deployments: model names in the API, with the state that was observed and the reason for it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_htmx.http import HttpResponseClientRedirect

from controlplane.portal import deployable, snippets
from controlplane.portal.access import Member, member_page
from controlplane.portal.forms import DeploymentForm, refused
from kernel.errors import DomainError, Invalid, NotFound
from serving import selectors as serving
from serving import services
from serving.models import Deployment, Wanted
from tenants.access import Permission


@require_safe
@member_page(Permission.MODEL_READ)
def deployments(request: HttpRequest, member: Member) -> HttpResponse:
    return render(request, "portal/deployments.html", _table(member))


@require_safe
@member_page(Permission.MODEL_READ)
def table(request: HttpRequest, member: Member) -> HttpResponse:
    """The list alone, for the page that looks again every few seconds."""
    return render(request, "portal/deployment_table.html", _table(member))


@require_http_methods(["GET", "HEAD", "POST"])
@member_page(Permission.MODEL_MANAGE)
def new(request: HttpRequest, member: Member) -> HttpResponse:
    choices = deployable.choices(member.organization.id)
    if request.method == "POST":
        return _create(request, member, DeploymentForm(request.POST, choices=choices))
    model = request.GET.get("model", "")
    initial = {"model": model, "slug": deployable.suggested_slug(choices, model)}
    return _new(request, member, DeploymentForm(initial=initial, choices=choices))


@require_safe
@member_page(Permission.MODEL_READ)
def one(request: HttpRequest, member: Member, deployment: UUID) -> HttpResponse:
    found = serving.deployment_get(member.organization.id, deployment)
    versions = serving.version_list(member.organization.id).exclude(id=found.version_id)
    context = {
        "member": member,
        "deployment": found,
        "going": found.wanted == Wanted.DELETED,
        "versions": versions.filter(project=found.project_id),
        "call": snippets.call(settings.TESSERA_GATEWAY_URL, found.slug),
    }
    return render(request, "portal/deployment.html", context)


@require_safe
@member_page(Permission.MODEL_READ)
def status(request: HttpRequest, member: Member, deployment: UUID) -> HttpResponse:
    """The state alone; once the deployment is gone, back to the list."""
    try:
        found = serving.deployment_get(member.organization.id, deployment)
    except NotFound:
        return HttpResponseClientRedirect(
            reverse("portal:deployments", args=[member.organization.slug])
        )
    context = {"member": member, "deployment": found}
    return render(request, "portal/deployment_status.html", context)


@require_POST
@member_page(Permission.MODEL_MANAGE)
def move(request: HttpRequest, member: Member, deployment: UUID) -> HttpResponse:
    services.deployment_version_change(
        member.organization.id,
        deployment,
        caller=member.caller,
        version_id=_chosen_version(request.POST.get("version", "")),
    )
    messages.success(
        request, _("The new version is being loaded; the old one answers until it is proven.")
    )
    return redirect("portal:deployments-one", member.organization.slug, deployment)


@require_POST
@member_page(Permission.MODEL_MANAGE)
def delete(request: HttpRequest, member: Member, deployment: UUID) -> HttpResponse:
    services.deployment_delete(member.organization.id, deployment, caller=member.caller)
    messages.success(request, _("The deployment is being deleted; its name no longer answers."))
    return redirect("portal:deployments", member.organization.slug)


def _chosen_version(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Invalid(_("Choose a version."), param="version", rule="version_id") from None


def _create(request: HttpRequest, member: Member, form: DeploymentForm) -> HttpResponse:
    if not form.is_valid():
        return _new(request, member, form, status=422)
    try:
        made = deployable.deploy(
            member.organization.id,
            caller=member.caller,
            chosen=form.cleaned_data["model"],
            slug=form.cleaned_data["slug"],
        )
    except DomainError as error:
        refused(form, error)
        return _new(request, member, form, status=error.status)
    return redirect("portal:deployments-one", member.organization.slug, made.id)


def _new(
    request: HttpRequest, member: Member, form: DeploymentForm, status: int = 200
) -> HttpResponse:
    context = {"member": member, "form": form}
    return render(request, "portal/deployment_new.html", context, status=status)


def _table(member: Member) -> dict[str, Any]:
    found: list[Deployment] = list(serving.deployment_list(member.organization.id))
    return {"member": member, "deployments": found}
