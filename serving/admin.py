"""Operators' view of every object. Rows are never edited here: actions call the services."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.admin import TabularInline

from serving import services
from serving.models import (
    Artifact,
    ArtifactFile,
    BaseModel,
    Cluster,
    Deployment,
    DocumentSequence,
    EngineReplica,
    ModelVersion,
    Placement,
    Pool,
    ReplicaAdapter,
)
from tenants.admin import ReadOnlyAdmin, ServiceAdmin, operator


class ReadOnlyInline(TabularInline):
    extra = 0
    can_delete = False

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return list(self.fields)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(BaseModel)
class BaseModelAdmin(ReadOnlyAdmin):
    list_display: ClassVar = ["slug", "name", "served_name", "context_tokens", "enabled"]
    list_filter: ClassVar = ["enabled"]
    search_fields: ClassVar = ["slug", "name", "digest"]
    exclude: ClassVar = ["modules", "config"]
    actions: ClassVar = ["offer", "withdraw"]

    @admin.action(description="Offer: new models may be based on it")
    def offer(self, request: HttpRequest, queryset: QuerySet[BaseModel]) -> None:
        for base in queryset:
            services.base_model_offer(base.slug, caller=operator(request))

    @admin.action(description="Withdraw: no new models; what is deployed goes on")
    def withdraw(self, request: HttpRequest, queryset: QuerySet[BaseModel]) -> None:
        for base in queryset:
            services.base_model_withdraw(base.slug, caller=operator(request))


class ArtifactFileInline(ReadOnlyInline):
    model = ArtifactFile
    fields: ClassVar = ["name", "size_bytes", "sha256"]


@admin.register(Artifact)
class ArtifactAdmin(ReadOnlyAdmin):
    list_display: ClassVar = [
        "name",
        "organization",
        "base",
        "status",
        "rule",
        "size_bytes",
        "created_at",
    ]
    list_filter: ClassVar = ["status", "rule", "base"]
    list_select_related: ClassVar = ["organization", "base"]
    search_fields: ClassVar = ["id", "name", "digest", "organization__slug"]
    inlines: ClassVar = [ArtifactFileInline]
    actions: ClassVar = ["forget"]

    @admin.action(description="Forget: refused where a model version refers to it")
    def forget(self, request: HttpRequest, queryset: QuerySet[Artifact]) -> None:
        for artifact in queryset:
            services.artifact_delete(
                artifact.organization_id, artifact.id, caller=operator(request)
            )


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnlyAdmin):
    list_display: ClassVar = ["name", "number", "organization", "project", "created_at"]
    list_select_related: ClassVar = ["organization", "project"]
    search_fields: ClassVar = ["id", "name", "organization__slug"]


class PlacementInline(ReadOnlyInline):
    model = Placement
    fields: ClassVar = ["version", "pool", "superseded_at", "created_at"]


@admin.register(Deployment)
class DeploymentAdmin(ReadOnlyAdmin):
    list_display: ClassVar = [
        "slug",
        "organization",
        "version",
        "wanted",
        "status",
        "reason",
        "changed_at",
    ]
    list_filter: ClassVar = ["status", "wanted"]
    list_select_related: ClassVar = ["organization", "version"]
    search_fields: ClassVar = ["id", "slug", "organization__slug"]
    inlines: ClassVar = [PlacementInline]
    actions: ClassVar = ["look", "remove"]

    @admin.action(description="Look now: compare with what runs")
    def look(self, request: HttpRequest, queryset: QuerySet[Deployment]) -> None:
        pools = Pool.objects.filter(placements__deployment__in=queryset).distinct()
        for pool in pools:
            services.pool_look(pool.id, caller=operator(request))

    @admin.action(description="Delete: it stops answering at once")
    def remove(self, request: HttpRequest, queryset: QuerySet[Deployment]) -> None:
        for deployment in queryset:
            services.deployment_delete(
                deployment.organization_id, deployment.id, caller=operator(request)
            )


@admin.register(Placement)
class PlacementAdmin(ReadOnlyAdmin):
    list_display: ClassVar = ["deployment", "organization", "version", "pool", "superseded_at"]
    list_select_related: ClassVar = [
        "deployment",
        "organization",
        "version",
        "pool__base",
        "pool__cluster",
    ]
    search_fields: ClassVar = ["deployment__slug", "organization__slug"]


@admin.register(Cluster)
class ClusterAdmin(ReadOnlyAdmin):
    list_display: ClassVar = ["name", "kind", "region", "cell", "created_at"]


class EngineReplicaInline(ReadOnlyInline):
    model = EngineReplica
    fields: ClassVar = ["name", "state", "reason", "incarnation", "reported_at"]


@admin.register(Pool)
class PoolAdmin(ServiceAdmin):
    """The number of engines may be changed; everything else is as it was planned."""

    list_display: ClassVar = [
        "base",
        "cluster",
        "mode",
        "profile",
        "replicas",
        "reason",
        "look_at",
    ]
    list_filter: ClassVar = ["mode", "cluster"]
    list_select_related: ClassVar = ["base", "cluster"]
    fields: ClassVar = [
        "base",
        "cluster",
        "mode",
        "profile",
        "replicas",
        "slots_per_replica",
        "reason",
        "empty_since",
        "look_at",
    ]
    readonly_fields: ClassVar = [
        "base",
        "cluster",
        "mode",
        "profile",
        "slots_per_replica",
        "reason",
        "empty_since",
        "look_at",
    ]
    inlines: ClassVar = [EngineReplicaInline]
    actions: ClassVar = ["look"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Pool, form: object, change: bool) -> None:  # noqa: FBT001
        services.pool_resize(obj.id, caller=operator(request), replicas=obj.replicas)

    @admin.action(description="Look now: compare with what runs")
    def look(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        for pool in queryset:
            services.pool_look(pool.id, caller=operator(request))


class ReplicaAdapterInline(ReadOnlyInline):
    model = ReplicaAdapter
    fields: ClassVar = ["name", "state", "reason", "incarnation"]


@admin.register(EngineReplica)
class EngineReplicaAdmin(ReadOnlyAdmin):
    list_display: ClassVar = ["name", "pool", "state", "reason", "incarnation", "reported_at"]
    list_filter: ClassVar = ["state"]
    list_select_related: ClassVar = ["pool__base", "pool__cluster"]
    search_fields: ClassVar = ["name", "incarnation"]
    inlines: ClassVar = [ReplicaAdapterInline]


@admin.register(DocumentSequence)
class DocumentSequenceAdmin(ReadOnlyAdmin):
    list_display: ClassVar = ["kind", "scope", "sequence"]
