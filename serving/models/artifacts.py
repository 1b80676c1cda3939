from __future__ import annotations

from django.conf import settings
from django.db import models

from kernel.ids import uuid7


class ArtifactKind(models.TextChoices):
    ADAPTER = "adapter", "LoRA adapter"
    WEIGHTS = "weights", "Full weights"


class ArtifactStatus(models.TextChoices):
    """``uploading -> validating -> ready | refused``; a failed check of size or digest goes back to
    uploading.
    """

    UPLOADING = "uploading"
    VALIDATING = "validating"
    READY = "ready"
    REFUSED = "refused"

    @property
    def is_finished(self) -> bool:
        return self in {ArtifactStatus.READY, ArtifactStatus.REFUSED}


class Artifact(models.Model):
    """A set of uploaded files. Ready means: every byte is there, checked, and stored under its
    digest.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("tenants.Organization", on_delete=models.PROTECT)
    project = models.ForeignKey("tenants.Project", on_delete=models.PROTECT)
    base = models.ForeignKey("serving.BaseModel", on_delete=models.PROTECT)
    kind = models.CharField(max_length=16, choices=ArtifactKind.choices)
    name = models.CharField(max_length=80)
    status = models.CharField(
        max_length=16, choices=ArtifactStatus.choices, default=ArtifactStatus.UPLOADING
    )
    digest = models.CharField(max_length=64, blank=True)
    size_bytes = models.PositiveBigIntegerField(help_text="As declared; counts against the quota.")
    rule = models.CharField(max_length=64, blank=True, help_text="The rule that refused it.")
    reason = models.TextField(blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True
    )
    created_at = models.DateTimeField(auto_now_add=True)
    active_at = models.DateTimeField(auto_now_add=True, help_text="When its last part arrived.")
    claim_token = models.UUIDField(null=True, blank=True, editable=False)
    claim_expires_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(status__in=ArtifactStatus.values),
                name="artifact_status_is_known",
            ),
            models.CheckConstraint(
                condition=models.Q(kind__in=ArtifactKind.values), name="artifact_kind_is_known"
            ),
            models.CheckConstraint(
                condition=~models.Q(status=ArtifactStatus.READY) | ~models.Q(digest=""),
                name="artifact_ready_has_digest",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ArtifactFile(models.Model):
    """One file of an artifact, with the size and SHA-256 its uploader declared."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("tenants.Organization", on_delete=models.PROTECT)
    artifact = models.ForeignKey(Artifact, on_delete=models.CASCADE, related_name="files")
    name = models.CharField(max_length=80)
    size_bytes = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["artifact", "name"], name="file_unique_in_artifact"),
        ]

    def __str__(self) -> str:
        return self.name


class ArtifactPart(models.Model):
    """A part that is wholly on disk. Parts are numbered from 0 and all but the last have the same
    size.
    """

    organization = models.ForeignKey("tenants.Organization", on_delete=models.PROTECT)
    file = models.ForeignKey(ArtifactFile, on_delete=models.CASCADE, related_name="parts")
    number = models.PositiveIntegerField()
    size_bytes = models.PositiveBigIntegerField()
    received_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["file", "number"], name="part_unique_in_file"),
        ]

    def __str__(self) -> str:
        return f"{self.file_id} {self.number}"
