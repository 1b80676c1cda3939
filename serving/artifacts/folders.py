"""Where this installation keeps files."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from django.conf import settings

from serving.artifacts.staging import Staging
from serving.artifacts.store import FolderStore, ObjectStore


def object_store() -> ObjectStore:
    return FolderStore(Path(settings.TESSERA_HOME) / "objects")


def staging(artifact_id: UUID) -> Staging:
    """The place of an upload that is under way."""
    return Staging(Path(settings.TESSERA_HOME) / "uploads", artifact_id)
