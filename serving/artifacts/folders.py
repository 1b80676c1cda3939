"""Where this installation keeps files."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from serving.artifacts.store import FolderStore, ObjectStore


def object_store() -> ObjectStore:
    return FolderStore(Path(settings.TESSERA_HOME) / "objects")


def uploads_folder() -> Path:
    """Parts of uploads that are under way; the same disk as the objects."""
    return Path(settings.TESSERA_HOME) / "uploads"
