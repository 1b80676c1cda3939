"""What the REST API takes and shows. Input is strict; output is what is listed here."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from serving.models import (
    Artifact,
    ArtifactFile,
    ArtifactKind,
    BaseModel,
    Deployment,
    ModelVersion,
)
from serving.services import DeclaredFile
from serving.services.artifacts import PART_BYTES, part_count
from tenants.rest import StrictSerializer

MOST_FILES = 16

# Input


class NewFile(StrictSerializer):
    name = serializers.CharField(max_length=1000, trim_whitespace=False)
    size_bytes = serializers.IntegerField(min_value=0, max_value=1 << 50)
    sha256 = serializers.RegexField(
        r"\A[0-9a-f]{64}\Z", help_text="64 lower-case hexadecimal digits."
    )

    def to_internal_value(self, data: object) -> DeclaredFile:
        return DeclaredFile(**super().to_internal_value(data))


class NewArtifact(StrictSerializer):
    name = serializers.CharField(max_length=80)
    base = serializers.CharField(max_length=80, help_text="Short name of a base model.")
    kind = serializers.ChoiceField(ArtifactKind.choices, default=ArtifactKind.ADAPTER)
    project = serializers.CharField(
        max_length=40, default="", help_text="Id or short name; the first project if absent."
    )
    files = serializers.ListField(child=NewFile(), min_length=1, max_length=MOST_FILES)


class NewVersion(StrictSerializer):
    name = serializers.CharField(max_length=80, help_text="The model; the first version makes it.")
    artifact = serializers.UUIDField(required=False)
    base = serializers.CharField(
        max_length=80, required=False, help_text="A base model, to be served as it is."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("artifact" in attrs) == ("base" in attrs):
            raise serializers.ValidationError(
                {"artifact": ["Give either an artifact or a base model."]}, code="artifact_or_base"
            )
        return attrs


class NewDeployment(StrictSerializer):
    slug = serializers.CharField(max_length=80, help_text="The model name that requests will use.")
    version = serializers.UUIDField()


class VersionChange(StrictSerializer):
    version = serializers.UUIDField()


# Output


class BaseModelShape(serializers.ModelSerializer[BaseModel]):
    class Meta:
        model = BaseModel
        fields: ClassVar = ["slug", "name", "digest", "context_tokens", "default_output_tokens"]


class ArtifactFileShape(serializers.ModelSerializer[ArtifactFile]):
    parts_expected = serializers.SerializerMethodField()
    parts_received = serializers.SerializerMethodField()

    class Meta:
        model = ArtifactFile
        fields: ClassVar = ["name", "size_bytes", "sha256", "parts_expected", "parts_received"]

    def get_parts_expected(self, file: ArtifactFile) -> int:
        return part_count(file.size_bytes)

    @extend_schema_field(serializers.ListField(child=serializers.IntegerField()))
    def get_parts_received(self, file: ArtifactFile) -> list[int]:
        return sorted(part.number for part in file.parts.all())


class ArtifactShape(serializers.ModelSerializer[Artifact]):
    base = serializers.SlugRelatedField(slug_field="slug", read_only=True)  # type: ignore[var-annotated]
    project = serializers.SlugRelatedField(slug_field="slug", read_only=True)  # type: ignore[var-annotated]
    part_size_bytes = serializers.SerializerMethodField()
    files = ArtifactFileShape(many=True)

    class Meta:
        model = Artifact
        fields: ClassVar = [
            "id",
            "name",
            "kind",
            "base",
            "project",
            "status",
            "rule",
            "reason",
            "digest",
            "size_bytes",
            "part_size_bytes",
            "files",
            "created_at",
        ]

    def get_part_size_bytes(self, artifact: Artifact) -> int:
        return PART_BYTES


class VersionShape(serializers.ModelSerializer[ModelVersion]):
    base = serializers.CharField(source="made_for.slug")
    project = serializers.CharField(source="project.slug")

    class Meta:
        model = ModelVersion
        fields: ClassVar = ["id", "name", "number", "base", "project", "artifact", "created_at"]


class DeploymentShape(serializers.ModelSerializer[Deployment]):
    version = VersionShape()
    project = serializers.CharField(source="project.slug")

    class Meta:
        model = Deployment
        fields: ClassVar = [
            "id",
            "slug",
            "project",
            "version",
            "wanted",
            "status",
            "reason",
            "created_at",
            "changed_at",
        ]
