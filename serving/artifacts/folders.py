"""Where this installation keeps files."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from django.conf import settings

from serving.artifacts.staging import Staging
from serving.artifacts.store import FolderStore, ObjectStore


def object_store() -> ObjectStore:
    """A bucket where the environment names one, else a folder."""
    if settings.AWS_STORAGE_BUCKET_NAME:
        return _bucket(settings.AWS_STORAGE_BUCKET_NAME)
    return FolderStore(Path(settings.TESSERA_HOME) / "objects")


def staging(artifact_id: UUID) -> Staging:
    """The place of an upload that is under way."""
    return Staging(Path(settings.TESSERA_HOME) / "uploads", artifact_id)


def _bucket(name: str) -> ObjectStore:
    # boto3 takes 40 MB and half a second: only an installation that uses it imports it.
    from serving.artifacts.s3 import S3Store, s3_client  # noqa: PLC0415

    client = s3_client(endpoint=settings.AWS_ENDPOINT_URL_S3, region=settings.AWS_REGION)
    return S3Store(client, name)
