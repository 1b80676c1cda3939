"""Writes: one function per thing that is done, with its rule, audit record and hint."""

from serving.services.artifacts import (
    DeclaredFile,
    artifact_complete,
    artifact_create,
    artifact_delete,
    part_put,
)
from serving.services.catalogue import (
    base_model_offer,
    base_model_register,
    base_model_withdraw,
)
from serving.services.deployments import (
    deployment_create,
    deployment_delete,
    deployment_version_change,
)
from serving.services.fleet import pool_look, pool_resize
from serving.services.reports import report_accept
from serving.services.validation import artifact_validate, artifacts_sweep
from serving.services.versions import base_version_create, version_create, version_delete

__all__ = [
    "DeclaredFile",
    "artifact_complete",
    "artifact_create",
    "artifact_delete",
    "artifact_validate",
    "artifacts_sweep",
    "base_model_offer",
    "base_model_register",
    "base_model_withdraw",
    "base_version_create",
    "deployment_create",
    "deployment_delete",
    "deployment_version_change",
    "part_put",
    "pool_look",
    "pool_resize",
    "report_accept",
    "version_create",
    "version_delete",
]
