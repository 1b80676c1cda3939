"""What a worker does with a complete upload: check it, keep it, or say why not."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from kernel.errors import Unavailable
from serving.artifacts.digest import artifact_digest
from serving.artifacts.folders import object_store, staging
from serving.artifacts.store import ObjectStore
from serving.artifacts.validation import Verdict, validate_adapter
from serving.controller.spec import CPU
from serving.models import Artifact, ArtifactStatus
from serving.services.locks import object_locked
from serving.services.objects import objects_release
from tenants.access import Caller
from tenants.scope import platform_scope
from tenants.services import audit_record

# Longer than a check and the copying of its files can take.
CLAIM_FOR = timedelta(minutes=5)
ABANDONED_AFTER = timedelta(hours=24)
_SYSTEM = Caller.system("validation")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    artifact: Artifact
    token: UUID
    digests: dict[str, str]
    paths: dict[str, Path]


def artifact_validate(artifact_id: UUID, *, store: ObjectStore | None = None) -> None:
    """Come to a verdict on a complete upload. Nothing where somebody else does, or there is none.

    Files are in the store before the artifact is ready, and of a refused one nothing is kept.
    Interrupted anywhere it is done again, with the same result.
    """
    work = _claim(artifact_id)
    if work is None:
        return
    store = store or object_store()
    try:
        decided = _decide(work, store)
    except Unavailable as error:
        log.warning("artifact %s: %s", artifact_id, error.message)
        _give_back(work, error.message)
        return
    if not decided:
        objects_release(work.digests.values(), store)
        return
    staging(artifact_id).remove()


def artifacts_sweep() -> None:
    """Decide on every upload that waits and that nobody is at; give up the abandoned ones."""
    for artifact_id in _waiting():
        artifact_validate(artifact_id)
    _abandoned_remove()


def _waiting() -> list[UUID]:
    with platform_scope():
        rows = Artifact.objects.filter(_free(), status=ArtifactStatus.VALIDATING)
        return list(rows.order_by("active_at").values_list("id", flat=True))


def _abandoned_remove() -> None:
    """Those of which nothing was heard for a day."""
    with platform_scope():
        idle = Artifact.objects.filter(
            status=ArtifactStatus.UPLOADING, active_at__lt=Now() - ABANDONED_AFTER
        )
        given_up = list(idle.select_for_update(skip_locked=True))
        places = [staging(artifact.id) for artifact in given_up]
        for artifact in given_up:
            _audit(artifact, "artifact.abandon", "")
            artifact.delete()
    for place in places:
        place.remove()


def _claim(artifact_id: UUID) -> _Work | None:
    with platform_scope():
        rows = Artifact.objects.select_for_update(skip_locked=True, of=("self",))
        waiting = rows.filter(_free(), id=artifact_id, status=ArtifactStatus.VALIDATING)
        artifact = waiting.select_related("base").first()
        if artifact is None:
            return None
        token = uuid4()
        Artifact.objects.filter(id=artifact_id).update(
            claim_token=token, claim_expires_at=Now() + CLAIM_FOR
        )
        files = list(artifact.files.all())
    place = staging(artifact_id)
    return _Work(
        artifact=artifact,
        token=token,
        digests={file.name: file.sha256 for file in files},
        paths={file.name: place.whole(file.id) for file in files},
    )


def _decide(work: _Work, store: ObjectStore) -> bool:
    """True once there is a verdict; false where the claim is somebody else's by now."""
    verdict = validate_adapter(
        work.paths,
        modules=work.artifact.base.modules,
        base=work.artifact.base.slug,
        max_rank=CPU.largest_rank,
    )
    if not verdict.accepted:
        return _refuse(work, verdict)
    for name, path in work.paths.items():
        store.put(work.digests[name], path)
    return _accept(work, store)


def _refuse(work: _Work, verdict: Verdict) -> bool:
    with platform_scope():
        done = _mine(work).update(
            status=ArtifactStatus.REFUSED,
            rule=verdict.rule,
            reason=verdict.reason,
            claim_token=None,
        )
        if done:
            _audit(work.artifact, "artifact.refuse", verdict.rule)
    return bool(done)


def _accept(work: _Work, store: ObjectStore) -> bool:
    """From here on these objects are referred to. One that somebody removed a moment ago, before
    this artifact was known to want it, is put there again.
    """
    with ExitStack() as locked:
        for digest in sorted(work.digests.values()):
            locked.enter_context(object_locked(digest))
            if not store.exists(digest):
                raise Unavailable("A file is being removed by somebody else; trying again.")
        return _make_ready(work)


def _make_ready(work: _Work) -> bool:
    with platform_scope():
        done = _mine(work).update(
            status=ArtifactStatus.READY,
            reason="",
            digest=artifact_digest(work.digests),
            claim_token=None,
        )
        if done:
            _audit(work.artifact, "artifact.accept", "")
    return bool(done)


def _give_back(work: _Work, reason: str) -> None:
    """For the next sweep."""
    with platform_scope():
        _mine(work).update(claim_token=None, reason=reason)


def _mine(work: _Work) -> QuerySet[Artifact]:
    return Artifact.objects.filter(id=work.artifact.id, claim_token=work.token)


def _free() -> Q:
    return Q(claim_token=None) | Q(claim_expires_at__lt=Now())


def _audit(artifact: Artifact, verb: str, rule: str) -> None:
    audit_record(
        _SYSTEM,
        verb,
        target_type="artifact",
        target_id=artifact.id,
        organization_id=artifact.organization_id,
        detail={"name": artifact.name, "rule": rule},
    )
