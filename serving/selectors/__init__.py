"""Reads. Tenants' rows take the organization first; ``fleet`` sees every one, for parts of ours."""

from serving.selectors.artifacts import (
    artifact_get,
    artifact_list,
    base_model_get,
    base_model_list,
    storage_used_bytes,
)
from serving.selectors.deployments import (
    deployment_get,
    deployment_list,
    version_get,
    version_list,
)

__all__ = [
    "artifact_get",
    "artifact_list",
    "base_model_get",
    "base_model_list",
    "deployment_get",
    "deployment_list",
    "storage_used_bytes",
    "version_get",
    "version_list",
]
