"""Models: uploaded, checked, and shown with what came of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from controlplane.portal.access import Member, member_page
from controlplane.portal.forms import UploadForm
from controlplane.portal.hints import SENTENCES, hint_for
from serving import selectors as serving
from serving import services
from serving.models import Artifact, ArtifactStatus
from tenants import selectors as tenants
from tenants.access import Permission

# Stands in an address where a script puts the id of an upload that does not exist yet.
_BLANK_ID = UUID(int=0)


@require_safe
@member_page(Permission.MODEL_READ)
def models(request: HttpRequest, member: Member) -> HttpResponse:
    artifacts = serving.artifact_list(member.organization.id).prefetch_related("versions")
    return render(request, "portal/models.html", {"member": member, "artifacts": artifacts})


@require_safe
@member_page(Permission.MODEL_MANAGE)
def new(request: HttpRequest, member: Member) -> HttpResponse:
    bases = list(serving.base_model_list())
    projects = tenants.project_list(member.organization.id).order_by("id")
    context = {
        "member": member,
        "bases": bases,
        "form": UploadForm(bases=bases, projects=projects),
        **_uploader(),
    }
    return render(request, "portal/model_new.html", context)


@require_safe
@member_page(Permission.MODEL_READ)
def one(request: HttpRequest, member: Member, artifact: UUID) -> HttpResponse:
    found = serving.artifact_get(member.organization.id, artifact)
    uploading = found.status == ArtifactStatus.UPLOADING
    resumes = uploading and member.caller.can(Permission.MODEL_MANAGE)
    context = _progress(member, found) | _uploader() | {"resumes": resumes}
    return render(request, "portal/model.html", context)


@require_safe
@member_page(Permission.MODEL_READ)
def status(request: HttpRequest, member: Member, artifact: UUID) -> HttpResponse:
    """The part of the page that changes; the whole page once there is nothing more to wait for."""
    found = serving.artifact_get(member.organization.id, artifact)
    response = render(request, "portal/model_status.html", _progress(member, found))
    if ArtifactStatus(found.status).is_finished:
        response["HX-Refresh"] = "true"
    return response


@require_POST
@member_page(Permission.MODEL_MANAGE, scoped=False)
def delete(request: HttpRequest, member: Member, artifact: UUID) -> HttpResponse:
    services.artifact_delete(member.organization.id, artifact, caller=member.caller)
    messages.success(request, _("The upload and its files are deleted."))
    return redirect("portal:models", member.organization.slug)


def _uploader() -> dict[str, Any]:
    """What the uploader's script finds on the page."""
    sentences = {key: str(sentence) for key, sentence in SENTENCES.items()}
    return {"blank": _BLANK_ID, "sentences": sentences}


def _progress(member: Member, artifact: Artifact) -> dict[str, Any]:
    parts = [part.size_bytes for file in artifact.files.all() for part in file.parts.all()]
    return {
        "member": member,
        "artifact": artifact,
        "finished": ArtifactStatus(artifact.status).is_finished,
        "received_bytes": sum(parts),
        "hint": hint_for(artifact.rule),
    }
