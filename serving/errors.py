"""This room's refusals.

Unavailable
    StorageExhausted     our disk is full; nothing half-written stays          507
    EngineNotInstalled   this machine has no engine to start                   503
    RuntimeUnavailable   whoever keeps engines running does not answer         503
QuotaExceeded
    StorageQuotaExceeded the organization's own storage is used up             403
Conflict
    UploadClosed         the upload is complete, no more parts
    ArtifactNotReady     a version needs an artifact that passed its checks
    ArtifactInUse        a version refers to it
    VersionInUse         a deployment serves it
    SlugTaken            model names are unique in an organization
    DeploymentGoing      a deployment that is being deleted cannot be changed
Invalid                  (422) refusals of files and configurations carry the name of their rule
"""

from __future__ import annotations

from kernel.errors import Conflict, QuotaExceeded, Unavailable


class StorageExhausted(Unavailable):
    code = "storage_exhausted"
    status = 507
    default_message = (
        "The server's disk is full; nothing was kept of this request. "
        "Try again once its operator has made room."
    )


class EngineNotInstalled(Unavailable):
    code = "engine_not_installed"
    default_message = (
        "The engine is not installed on this machine. `make up` installs it; "
        "`make up SIMULATOR=1` starts a stand-in."
    )


class RuntimeUnavailable(Unavailable):
    code = "runtime_unavailable"
    default_message = "The supervisor does not answer. Start everything with `make up`."


class StorageQuotaExceeded(QuotaExceeded):
    """Waiting does not help, deleting does: hence not 429."""

    code = "storage_quota_exceeded"
    status = 403
    retryable = False
    default_message = "Your organization's storage is used up. Delete uploads you no longer need."


class UploadClosed(Conflict):
    code = "upload_closed"
    default_message = "This upload is complete and takes no more parts. Start a new one."


class ArtifactNotReady(Conflict):
    code = "artifact_not_ready"
    default_message = (
        "This upload has not passed its checks yet. Complete it and wait until it is ready."
    )


class ArtifactInUse(Conflict):
    code = "artifact_in_use"
    default_message = "A model version refers to this upload. Delete the version first."


class VersionInUse(Conflict):
    code = "version_in_use"
    default_message = (
        "A deployment serves this version. Delete the deployment, or move it to another version."
    )


class SlugTaken(Conflict):
    code = "slug_taken"
    default_message = (
        "Your organization has a deployment of this name already. Choose another name."
    )


class DeploymentGoing(Conflict):
    code = "deployment_going"
    default_message = (
        "This deployment is being deleted. Wait until it is gone, then create it again."
    )
