from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models

from kernel.ids import uuid7


class ClusterKind(models.TextChoices):
    LOCAL = "local", "This machine"
    KUBERNETES = "kubernetes", "Kubernetes"


class Cluster(models.Model):
    """A place where engines run. A cell has one or more."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.SlugField(max_length=40, unique=True)
    region = models.CharField(max_length=40)
    cell = models.SlugField(max_length=40)
    kind = models.CharField(max_length=16, choices=ClusterKind.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(kind__in=ClusterKind.values), name="cluster_kind_is_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class PoolMode(models.TextChoices):
    SHARED = "shared"
    DEDICATED = "dedicated"


class Pool(models.Model):
    """Engines of one base model that are alike. Reconciled as one: the claim says by whom, until
    when.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="pools")
    base = models.ForeignKey("serving.BaseModel", on_delete=models.PROTECT, related_name="pools")
    profile = models.CharField(
        max_length=40, help_text="Hardware and engine flags; see EngineSpec."
    )
    mode = models.CharField(max_length=16, choices=PoolMode.choices, default=PoolMode.SHARED)
    replicas = models.PositiveSmallIntegerField(default=1)
    slots_per_replica = models.PositiveSmallIntegerField(default=16)
    reason = models.TextField(blank=True, help_text="Why the last reconcile could not finish.")
    empty_since = models.DateTimeField(null=True, blank=True)
    look_at = models.DateTimeField(auto_now_add=True, help_text="When the sweep looks again.")
    claim_token = models.UUIDField(null=True, blank=True, editable=False)
    claim_expires_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["cluster", "base", "profile"],
                condition=models.Q(mode=PoolMode.SHARED),
                name="pool_shared_once_per_base_and_profile",
            ),
            models.CheckConstraint(
                condition=models.Q(mode__in=PoolMode.values), name="pool_mode_is_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.base} on {self.cluster}"


class ReplicaState(models.TextChoices):
    """``absent`` until its agent reports; the others are the agent's words."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    FAILING = "failing"
    GONE = "gone"


class EngineReplica(models.Model):
    """One engine of a pool, and what its agent last said of its present start, the incarnation."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="engine_replicas")
    name = models.CharField(max_length=60, unique=True)
    number = models.PositiveSmallIntegerField()
    incarnation = models.CharField(max_length=26, blank=True)
    replaced = ArrayField(
        models.CharField(max_length=26),
        default=list,
        blank=True,
        help_text="Earlier incarnations, the last few.",
    )
    address = models.CharField(max_length=200, blank=True)
    state = models.CharField(
        max_length=16, choices=ReplicaState.choices, default=ReplicaState.ABSENT
    )
    reason = models.TextField(blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    reported_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["pool", "number"]
        constraints = [
            models.UniqueConstraint(fields=["pool", "number"], name="replica_unique_in_pool"),
            models.CheckConstraint(
                condition=models.Q(state__in=ReplicaState.values), name="replica_state_is_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ReplicaAdapterState(models.TextChoices):
    FETCHING = "fetching"
    LOADING = "loading"
    PROVEN = "proven"
    NO_EFFECT = "no_effect"
    FAILED = "failed"


class ReplicaAdapter(models.Model):
    """The residency table: what one incarnation said of one adapter. Emptied with every new
    incarnation.
    """

    replica = models.ForeignKey(EngineReplica, on_delete=models.CASCADE, related_name="adapters")
    incarnation = models.CharField(max_length=26)
    name = models.CharField(max_length=80)
    digest = models.CharField(max_length=64)
    state = models.CharField(max_length=16, choices=ReplicaAdapterState.choices)
    reason = models.TextField(blank=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["replica", "name"], name="adapter_unique_on_replica"),
            models.CheckConstraint(
                condition=models.Q(state__in=ReplicaAdapterState.values),
                name="replica_adapter_state_is_known",
            ),
        ]

    def __str__(self) -> str:
        return self.name
