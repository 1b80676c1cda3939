"""What can be deployed: uploads that passed their checks, versions, and base models as they are."""

from __future__ import annotations

from uuid import UUID

from django.utils.text import slugify
from django.utils.translation import gettext as _

from kernel.errors import Invalid
from serving import selectors, services
from serving.models import ArtifactStatus, Deployment, ModelVersion
from tenants.access import Caller
from tenants.scope import organization_scope

Choices = list[tuple[str, list[tuple[str, str]]]]

_NAME_LENGTH = 40


def choices(organization_id: UUID) -> Choices:
    """Groups for a list. A value says what it names: ``artifact:<id>``, ``version:<id>`` or
    ``base:<slug>``.
    """
    uploads = selectors.artifact_list(organization_id).filter(
        status=ArtifactStatus.READY, versions=None
    )
    versions = selectors.version_list(organization_id)
    bases = selectors.base_model_list()
    groups = [
        (_("Uploads"), [(f"artifact:{each.id}", each.name) for each in uploads]),
        (_("Versions"), [(f"version:{each.id}", str(each)) for each in versions]),
        (_("Base models"), [(f"base:{each.slug}", each.name) for each in bases]),
    ]
    return [(label, entries) for label, entries in groups if entries]


def suggested_slug(offered: Choices, value: str) -> str:
    """A name in the API for what a value names; empty where it is not offered."""
    names = dict(entry for _group, group in offered for entry in group)
    return slugify(names.get(value, ""))[:_NAME_LENGTH]


def deploy(organization_id: UUID, *, caller: Caller, chosen: str, slug: str) -> Deployment:
    """Deploy what was chosen; an upload becomes a version first. Both are made or neither is."""
    with organization_scope(organization_id):
        version = _version(organization_id, caller, chosen)
        return services.deployment_create(
            organization_id, caller=caller, slug=slug, version_id=version.id
        )


def _version(organization_id: UUID, caller: Caller, chosen: str) -> ModelVersion:
    kind, _colon, identifier = chosen.partition(":")
    if kind == "version":
        return selectors.version_get(organization_id, UUID(identifier))
    if kind == "base":
        return services.base_version_create(
            organization_id, caller=caller, name=slugify(identifier)[:_NAME_LENGTH], base=identifier
        )
    if kind != "artifact":
        raise Invalid("Choose a model.", param="model", rule="model_choice")
    artifact = selectors.artifact_get(organization_id, UUID(identifier))
    name = slugify(artifact.name)[:_NAME_LENGTH] or "model"
    return services.version_create(
        organization_id, caller=caller, name=name, artifact_id=artifact.id
    )
