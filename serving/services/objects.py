"""Objects are shared by all whose files have the same bytes; the last one out removes them."""

from __future__ import annotations

from collections.abc import Iterable

from serving.artifacts.store import ObjectStore
from serving.models import ArtifactFile, ArtifactStatus
from serving.services.locks import object_lock
from tenants.scope import platform_scope


def objects_release(digests: Iterable[str], store: ObjectStore) -> None:
    """Remove the objects that no artifact refers to any more, not even one that is on its way."""
    for digest in sorted(set(digests)):
        with platform_scope():
            object_lock(digest)
            files = ArtifactFile.objects.filter(sha256=digest)
            if not files.exclude(artifact__status=ArtifactStatus.REFUSED).exists():
                store.delete(digest)
