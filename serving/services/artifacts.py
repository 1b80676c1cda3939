"""Uploads: declared, received in parts, completed or given up.

Nothing here holds a transaction open while bytes are read or written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models.functions import Now

from kernel.errors import Invalid, NotFound
from serving import selectors
from serving.artifacts.folders import object_store, staging
from serving.artifacts.names import files_check
from serving.artifacts.staging import Readable
from serving.changes import artifact_arrived
from serving.errors import ArtifactInUse, StorageQuotaExceeded, UploadClosed
from serving.models import (
    Artifact,
    ArtifactFile,
    ArtifactKind,
    ArtifactPart,
    ArtifactStatus,
)
from serving.services.locks import organization_lock
from serving.services.objects import objects_release
from tenants.access import ActorType, Caller, Permission
from tenants.models import Project
from tenants.scope import organization_scope
from tenants.selectors import limits_get, project_default, project_get
from tenants.services import audit_record
from tenants.services.rules import name_checked

PART_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredFile:
    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a part goes, read before its bytes are."""

    file_id: UUID
    size_bytes: int


def artifact_create(  # noqa: PLR0913 - what an upload declares
    organization_id: UUID,
    *,
    caller: Caller,
    name: str,
    base: str,
    files: Sequence[DeclaredFile],
    kind: ArtifactKind = ArtifactKind.ADAPTER,
    project: str = "",
) -> Artifact:
    """Begin an upload. What it declares counts against the organization's storage from now on."""
    caller.require(Permission.MODEL_MANAGE, organization_id=organization_id)
    if kind != ArtifactKind.ADAPTER:
        raise Invalid(
            "Full weights are not served yet; upload a LoRA adapter.", param="kind", rule="kind"
        )
    files_check([(file.name, file.size_bytes) for file in files])
    with organization_scope(organization_id):
        organization_lock(organization_id)
        artifact = Artifact(
            organization_id=organization_id,
            project=_project(organization_id, project),
            base=selectors.base_model_get(base),
            kind=kind,
            name=name_checked(name),
            size_bytes=sum(file.size_bytes for file in files),
            created_by_id=_person(caller),
        )
        _storage_check(organization_id, artifact.size_bytes)
        artifact.save(force_insert=True)
        for file in files:
            ArtifactFile.objects.create(
                organization_id=organization_id,
                artifact=artifact,
                name=file.name,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
            )
        _audit(caller, "artifact.create", artifact, {"size_bytes": artifact.size_bytes})
        return selectors.artifact_get(organization_id, artifact.id)


def part_put(  # noqa: PLR0913 - where a part belongs
    organization_id: UUID,
    artifact_id: UUID,
    *,
    caller: Caller,
    file_name: str,
    number: int,
    body: Readable,
) -> None:
    """Keep one part. Any order, any number of times: the last one sent is the one that counts."""
    caller.require(Permission.MODEL_MANAGE, organization_id=organization_id)
    with organization_scope(organization_id):
        slot = _slot(organization_id, artifact_id, file_name, number)
    kept = staging(artifact_id).part_write(
        slot.file_id, number, size_bytes=slot.size_bytes, body=body
    )
    if not kept:
        raise Invalid(
            f"Part {number} of {file_name} has exactly {slot.size_bytes} bytes; send it again.",
            param="part",
            rule="part_size",
        )
    with organization_scope(organization_id):
        _require_open(organization_id, artifact_id)
        ArtifactPart.objects.update_or_create(
            organization_id=organization_id,
            file_id=slot.file_id,
            number=number,
            defaults={"size_bytes": slot.size_bytes},
        )
        Artifact.objects.filter(id=artifact_id).update(active_at=Now())


def artifact_complete(organization_id: UUID, artifact_id: UUID, *, caller: Caller) -> Artifact:
    """Everything was sent: put the files together, and have them checked if they are what was
    declared. Completing twice is as once.
    """
    caller.require(Permission.MODEL_MANAGE, organization_id=organization_id)
    with organization_scope(organization_id):
        artifact = selectors.artifact_get(organization_id, artifact_id)
        if artifact.status != ArtifactStatus.UPLOADING:
            return artifact
        _require_all_parts(artifact)
    _assemble(artifact)
    with organization_scope(organization_id):
        uploading = Artifact.objects.filter(id=artifact_id, status=ArtifactStatus.UPLOADING)
        if uploading.update(status=ArtifactStatus.VALIDATING, active_at=Now()):
            _audit(caller, "artifact.complete", artifact, {})
            artifact_arrived(artifact_id)
        return selectors.artifact_get(organization_id, artifact_id)


def artifact_delete(organization_id: UUID, artifact_id: UUID, *, caller: Caller) -> None:
    """Give an upload up, or forget an artifact that no version refers to."""
    caller.require(Permission.MODEL_MANAGE, organization_id=organization_id)
    with organization_scope(organization_id):
        organization_lock(organization_id)
        artifact = selectors.artifact_get(organization_id, artifact_id)
        if artifact.versions.exists():
            raise ArtifactInUse
        digests = [file.sha256 for file in artifact.files.all()]
        _audit(caller, "artifact.delete", artifact, {"name": artifact.name})
        artifact.delete()
    staging(artifact_id).remove()
    objects_release(digests, object_store())


def _project(organization_id: UUID, named: str) -> Project:
    return project_get(organization_id, named) if named else project_default(organization_id)


def _storage_check(organization_id: UUID, wanted_bytes: int) -> None:
    """The organization is locked: two uploads cannot both fit into the same rest."""
    limit = limits_get(organization_id).storage_bytes
    used = selectors.storage_used_bytes(organization_id)
    if used + wanted_bytes > limit:
        raise StorageQuotaExceeded(
            f"This upload has {wanted_bytes} bytes, and {max(0, limit - used)} of your "
            f"organization's {limit} are left. Delete uploads you no longer need."
        )


def _slot(organization_id: UUID, artifact_id: UUID, file_name: str, number: int) -> _Slot:
    _require_open(organization_id, artifact_id)
    file = ArtifactFile.objects.filter(artifact_id=artifact_id, name=file_name).first()
    if file is None:
        raise NotFound("This upload has no file by that name.", param="file")
    if not 0 <= number < part_count(file.size_bytes):
        raise Invalid(
            f"{file_name} has the parts 0 to {part_count(file.size_bytes) - 1}.",
            param="part",
            rule="part_number",
        )
    return _Slot(file.id, min(PART_BYTES, file.size_bytes - number * PART_BYTES))


def part_count(size_bytes: int) -> int:
    return -(-size_bytes // PART_BYTES)


def _require_open(organization_id: UUID, artifact_id: UUID) -> None:
    """Locked against being completed or deleted until the transaction ends."""
    rows = Artifact.objects.select_for_update(no_key=True)
    artifact = rows.filter(organization_id=organization_id, id=artifact_id).first()
    if artifact is None:
        raise NotFound("There is no upload by that id.")
    if artifact.status != ArtifactStatus.UPLOADING:
        raise UploadClosed


def _require_all_parts(artifact: Artifact) -> None:
    for file in artifact.files.all():
        received = {part.number for part in file.parts.all()}
        missing = sorted(set(range(part_count(file.size_bytes))) - received)
        if missing:
            raise Invalid(
                f"{file.name} lacks {len(missing)} of its parts, the first is {missing[0]}. "
                "Send them, then complete again.",
                param="files",
                rule="part_missing",
            )


def _assemble(artifact: Artifact) -> None:
    place = staging(artifact.id)
    for file in artifact.files.all():
        right = place.assemble(file.id, parts=part_count(file.size_bytes), sha256=file.sha256)
        if not right:
            raise Invalid(
                f"The bytes of {file.name} do not have the SHA-256 that was declared. "
                "Send its parts again, then complete again.",
                param="files",
                rule="file_digest",
            )


def _person(caller: Caller) -> UUID | None:
    is_person = caller.actor_type in {ActorType.USER, ActorType.OPERATOR}
    return UUID(caller.actor_id) if is_person else None


def _audit(caller: Caller, verb: str, artifact: Artifact, detail: Mapping[str, Any]) -> None:
    audit_record(
        caller,
        verb,
        target_type="artifact",
        target_id=artifact.id,
        organization_id=artifact.organization_id,
        detail={"name": artifact.name, **detail},
    )
