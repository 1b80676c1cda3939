from __future__ import annotations

from django.db import models

from kernel.ids import adapter_name, uuid7
from serving.models.catalogue import BaseModel


class ModelVersion(models.Model):
    """An artifact, or a base model as it is, under a name and number.

    Never changed: other bytes are another version.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("tenants.Organization", on_delete=models.PROTECT)
    project = models.ForeignKey("tenants.Project", on_delete=models.PROTECT)
    name = models.SlugField(max_length=60)
    number = models.PositiveIntegerField()
    artifact = models.ForeignKey(
        "serving.Artifact", on_delete=models.PROTECT, related_name="versions", null=True
    )
    base = models.ForeignKey(
        "serving.BaseModel",
        on_delete=models.PROTECT,
        null=True,
        help_text="Where there is no artifact: the base model that is served as it is.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "name", "number"], name="version_unique_in_model"
            ),
            models.CheckConstraint(
                condition=models.Q(artifact=None) ^ models.Q(base=None),
                name="version_is_artifact_or_base",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.number}"

    @property
    def is_base(self) -> bool:
        return self.artifact_id is None

    @property
    def made_for(self) -> BaseModel:
        """The base model that engines of this version serve."""
        return self.artifact.base if self.artifact else self._own_base

    @property
    def digest(self) -> str:
        """Which bytes this is: of the adapter, or of the base model."""
        return self.artifact.digest if self.artifact else self._own_base.digest

    @property
    def _own_base(self) -> BaseModel:
        assert self.base is not None, "version_is_artifact_or_base"
        return self.base


class Wanted(models.TextChoices):
    RUNNING = "running"
    DELETED = "deleted"


class DeploymentStatus(models.TextChoices):
    """What was observed, in one word; ``reason`` says it in a sentence."""

    PENDING = "pending"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"


class Deployment(models.Model):
    """A model name that customers call, and the version it should lead to.

    ``status`` and ``reason`` are written by reconcile alone. The row goes once no engine holds its
    adapter.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("tenants.Organization", on_delete=models.PROTECT)
    project = models.ForeignKey("tenants.Project", on_delete=models.PROTECT)
    slug = models.SlugField(max_length=60, help_text="The model name in the API.")
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="deployments")
    wanted = models.CharField(max_length=16, choices=Wanted.choices, default=Wanted.RUNNING)
    status = models.CharField(
        max_length=16, choices=DeploymentStatus.choices, default=DeploymentStatus.PENDING
    )
    reason = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now_add=True, help_text="When the status last changed.")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "slug"], name="deployment_slug_unique_in_organization"
            ),
            models.CheckConstraint(
                condition=models.Q(wanted__in=Wanted.values), name="deployment_wanted_is_known"
            ),
            models.CheckConstraint(
                condition=models.Q(status__in=DeploymentStatus.values),
                name="deployment_status_is_known",
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class Placement(models.Model):
    """A version of a deployment that the engines of a pool should hold.

    A deployment whose version changes has two for a while: the old one serves until the new one is
    proven, and goes some seconds after ``superseded_at``.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("tenants.Organization", on_delete=models.PROTECT)
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="placements")
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="placements")
    pool = models.ForeignKey("serving.Pool", on_delete=models.PROTECT, related_name="placements")
    superseded_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["deployment", "version", "pool"], name="placement_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.deployment} on {self.pool}"

    @property
    def adapter(self) -> str:
        """What the engine calls it: the adapter's name, or the base model's own."""
        if self.version.is_base:
            return self.version.made_for.served_name
        return adapter_name(self.organization_id, self.deployment_id, self.version.digest)
