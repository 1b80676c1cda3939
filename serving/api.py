"""REST: base models, uploads, model versions, deployments."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from django.http import UnreadablePostError
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from kernel.errors import Invalid
from serving import selectors, services
from serving import serializers as shapes
from serving.models import ModelVersion
from tenants.access import Permission
from tenants.rest import OrganizationView
from tenants.scope import organization_scope

_READ_AND_MAKE = {"GET": Permission.MODEL_READ, "POST": Permission.MODEL_MANAGE}
_READ_AND_DELETE = {"GET": Permission.MODEL_READ, "DELETE": Permission.MODEL_MANAGE}


class BytesParser(BaseParser):
    """Leaves the body where it is: the view reads it as it arrives."""

    media_type = "application/octet-stream"


class BaseModelsView(OrganizationView):
    permissions: ClassVar = {"GET": Permission.MODEL_READ}

    @extend_schema(responses=shapes.BaseModelShape(many=True))
    def get(self, request: Request) -> Response:
        """The base models that adapters can be made for."""
        return self.page(selectors.base_model_list(), shapes.BaseModelShape, "slug")


class ArtifactsView(OrganizationView):
    permissions: ClassVar = _READ_AND_MAKE

    @extend_schema(responses=shapes.ArtifactShape(many=True))
    def get(self, request: Request) -> Response:
        """Uploads, newest first."""
        return self.page(selectors.artifact_list(self.organization), shapes.ArtifactShape)

    @extend_schema(request=shapes.NewArtifact, responses={201: shapes.ArtifactShape})
    def post(self, request: Request) -> Response:
        """Begin an upload: declare its files, then send their parts, then complete it."""
        made = services.artifact_create(
            self.organization, caller=self.caller, **self.parsed(shapes.NewArtifact)
        )
        return Response(shapes.ArtifactShape(made).data, status=201)


class ArtifactDetailView(OrganizationView):
    permissions: ClassVar = _READ_AND_DELETE
    scoped = False  # files go once it is committed that nothing refers to them

    @extend_schema(responses=shapes.ArtifactShape)
    def get(self, request: Request, artifact: UUID) -> Response:
        """How far an upload is, or which rule refused it."""
        return _artifact(self.organization, artifact)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, artifact: UUID) -> Response:
        """Give an upload up, or forget an artifact that no model version refers to."""
        services.artifact_delete(self.organization, artifact, caller=self.caller)
        return Response(status=204)


class ArtifactPartView(OrganizationView):
    permissions: ClassVar = {"PUT": Permission.MODEL_MANAGE}
    parser_classes = (BytesParser,)
    scoped = False

    @extend_schema(request={"application/octet-stream": OpenApiTypes.BINARY}, responses={204: None})
    def put(self, request: Request, artifact: UUID, name: str, number: int) -> Response:
        """Send one part. Every part but the last has exactly ``part_size_bytes``; sending one
        again replaces it, in any order.
        """
        try:
            services.part_put(
                self.organization,
                artifact,
                caller=self.caller,
                file_name=name,
                number=number,
                body=request._request,
            )
        except UnreadablePostError as error:
            raise Invalid(
                "The part ended before all of it was sent; send it again.", rule="part_size"
            ) from error
        return Response(status=204)


class ArtifactCompletionView(OrganizationView):
    permissions: ClassVar = {"POST": Permission.MODEL_MANAGE}
    scoped = False

    @extend_schema(request=None, responses={202: shapes.ArtifactShape})
    def post(self, request: Request, artifact: UUID) -> Response:
        """Everything is sent. The files are checked next: look again until ready or refused."""
        services.artifact_complete(self.organization, artifact, caller=self.caller)
        return _artifact(self.organization, artifact, status=202)


class VersionsView(OrganizationView):
    permissions: ClassVar = _READ_AND_MAKE

    @extend_schema(responses=shapes.VersionShape(many=True))
    def get(self, request: Request) -> Response:
        """Model versions, newest first."""
        return self.page(selectors.version_list(self.organization), shapes.VersionShape)

    @extend_schema(request=shapes.NewVersion, responses={201: shapes.VersionShape})
    def post(self, request: Request) -> Response:
        """Make an artifact, or a base model as it is, the next version of a model."""
        given = self.parsed(shapes.NewVersion)
        made = self._made(**given)
        found = selectors.version_get(self.organization, made.id)
        return Response(shapes.VersionShape(found).data, status=201)

    def _made(self, name: str, artifact: UUID | None = None, base: str = "") -> ModelVersion:
        if artifact is None:
            return services.base_version_create(
                self.organization, caller=self.caller, name=name, base=base
            )
        return services.version_create(
            self.organization, caller=self.caller, name=name, artifact_id=artifact
        )


class VersionDetailView(OrganizationView):
    permissions: ClassVar = _READ_AND_DELETE

    @extend_schema(responses=shapes.VersionShape)
    def get(self, request: Request, version: UUID) -> Response:
        """One model version."""
        found = selectors.version_get(self.organization, version)
        return Response(shapes.VersionShape(found).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, version: UUID) -> Response:
        """Forget a version that nothing serves."""
        services.version_delete(self.organization, version, caller=self.caller)
        return Response(status=204)


class DeploymentsView(OrganizationView):
    permissions: ClassVar = _READ_AND_MAKE

    @extend_schema(responses=shapes.DeploymentShape(many=True))
    def get(self, request: Request) -> Response:
        """Deployments, newest first."""
        return self.page(selectors.deployment_list(self.organization), shapes.DeploymentShape)

    @extend_schema(request=shapes.NewDeployment, responses={201: shapes.DeploymentShape})
    def post(self, request: Request) -> Response:
        """Serve a version under a model name. It answers once its status is ready."""
        given = self.parsed(shapes.NewDeployment)
        made = services.deployment_create(
            self.organization, caller=self.caller, slug=given["slug"], version_id=given["version"]
        )
        return _deployment(self.organization, made.id, status=201)


class DeploymentDetailView(OrganizationView):
    permissions: ClassVar = {
        "GET": Permission.MODEL_READ,
        "PATCH": Permission.MODEL_MANAGE,
        "DELETE": Permission.MODEL_MANAGE,
    }

    @extend_schema(responses=shapes.DeploymentShape)
    def get(self, request: Request, deployment: UUID) -> Response:
        """Status as it was last observed, and why."""
        return _deployment(self.organization, deployment)

    @extend_schema(request=shapes.VersionChange, responses=shapes.DeploymentShape)
    def patch(self, request: Request, deployment: UUID) -> Response:
        """Lead the name to another version; the one before answers until the new one is proven."""
        services.deployment_version_change(
            self.organization,
            deployment,
            caller=self.caller,
            version_id=self.parsed(shapes.VersionChange)["version"],
        )
        return _deployment(self.organization, deployment)

    @extend_schema(responses={202: shapes.DeploymentShape})
    def delete(self, request: Request, deployment: UUID) -> Response:
        """Stop answering at once. The deployment is gone when it is no longer found."""
        services.deployment_delete(self.organization, deployment, caller=self.caller)
        return _deployment(self.organization, deployment, status=202)


def _deployment(organization_id: UUID, deployment_id: UUID, *, status: int = 200) -> Response:
    found = selectors.deployment_get(organization_id, deployment_id)
    return Response(shapes.DeploymentShape(found).data, status=status)


def _artifact(organization_id: UUID, artifact_id: UUID, *, status: int = 200) -> Response:
    with organization_scope(organization_id):
        found = selectors.artifact_get(organization_id, artifact_id)
        return Response(shapes.ArtifactShape(found).data, status=status)
