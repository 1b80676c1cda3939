"""What is served, for whom, where: the rows that are the desired state, and what was observed of
it.
"""

from serving.models.artifacts import (
    Artifact,
    ArtifactFile,
    ArtifactKind,
    ArtifactPart,
    ArtifactStatus,
)
from serving.models.catalogue import BaseModel
from serving.models.deployments import (
    Deployment,
    DeploymentStatus,
    ModelVersion,
    Placement,
    Wanted,
)
from serving.models.documents import DocumentSequence
from serving.models.fleet import (
    Cluster,
    ClusterKind,
    EngineReplica,
    Pool,
    PoolMode,
    ReplicaAdapter,
    ReplicaAdapterState,
    ReplicaState,
)

__all__ = [
    "Artifact",
    "ArtifactFile",
    "ArtifactKind",
    "ArtifactPart",
    "ArtifactStatus",
    "BaseModel",
    "Cluster",
    "ClusterKind",
    "Deployment",
    "DeploymentStatus",
    "DocumentSequence",
    "EngineReplica",
    "ModelVersion",
    "Placement",
    "Pool",
    "PoolMode",
    "ReplicaAdapter",
    "ReplicaAdapterState",
    "ReplicaState",
    "Wanted",
]
