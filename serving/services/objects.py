"""Objects are shared by all whose files have the same bytes; the last one out removes them."""

from __future__ import annotations

from collections.abc import Iterable

from serving.artifacts.store import ObjectStore
from serving.models import ArtifactFile, ArtifactStatus
from serving.services.locks import object_locked
from tenants.scope import platform_scope


def objects_release(digests: Iterable[str], store: ObjectStore) -> None:
    """Remove the objects that no artifact refers to any more, not even one that is on its way."""
    for digest in sorted(set(digests)):
        with object_locked(digest):
            if not _is_referred_to(digest):
                store.delete(digest)


def _is_referred_to(digest: str) -> bool:
    with platform_scope():
        files = ArtifactFile.objects.filter(sha256=digest)
        return files.exclude(artifact__status=ArtifactStatus.REFUSED).exists()
