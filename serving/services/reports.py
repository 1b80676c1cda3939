"""What agents say of their engines becomes the residency table."""

from __future__ import annotations

from django.utils import timezone

from kernel.errors import Invalid, NotFound
from serving.changes import pool_changed
from serving.contracts import READABLE_VERSIONS, AdapterReport, AgentReport
from serving.models import EngineReplica, ReplicaAdapter, ReplicaState
from tenants.scope import platform_scope

_REPLACED_KEPT = 8


def report_accept(report: AgentReport) -> bool:
    """Make a report the truth about its replica. False where it came too late to be.

    A report replaces every earlier one of the same incarnation. A new incarnation starts with
    nothing resident. An incarnation that was replaced by a younger one is ignored, however late its
    reports arrive; age alone does not decide, because a machine's clock may have been set back
    between two starts.
    """
    if report.version not in READABLE_VERSIONS:
        raise Invalid(f"Report version {report.version} is not readable.", rule="report_version")
    with platform_scope():
        replica = EngineReplica.objects.select_for_update().filter(name=report.replica).first()
        if replica is None:
            raise NotFound("There is no replica by that name.")
        if report.incarnation in replica.replaced and report.incarnation < replica.incarnation:
            return False
        changed = _replica_update(replica, report) | _residency_replace(replica, report)
        if changed:
            pool_changed(replica.pool_id)
    return True


def _replica_update(replica: EngineReplica, report: AgentReport) -> bool:
    now = timezone.now()
    before = _seen(replica)
    if report.incarnation != replica.incarnation:
        if replica.incarnation:
            replica.replaced = [*replica.replaced, replica.incarnation][-_REPLACED_KEPT:]
        replica.incarnation = report.incarnation
        replica.started_at = now
    replica.address = report.address
    replica.state = ReplicaState(report.state)
    replica.reason = report.reason
    replica.reported_at = now
    replica.save()
    return _seen(replica) != before


def _seen(replica: EngineReplica) -> tuple[str, str, str, str]:
    return replica.incarnation, replica.address, replica.state, replica.reason


def _residency_replace(replica: EngineReplica, report: AgentReport) -> bool:
    before = {
        (row.name, row.digest, row.state, row.reason, row.incarnation)
        for row in ReplicaAdapter.objects.filter(replica=replica)
    }
    after = {_row_key(adapter, report.incarnation) for adapter in report.adapters}
    if before == after:
        return False
    ReplicaAdapter.objects.filter(replica=replica).delete()
    ReplicaAdapter.objects.bulk_create(
        ReplicaAdapter(
            replica=replica,
            incarnation=report.incarnation,
            name=adapter.name,
            digest=adapter.digest,
            state=adapter.state,
            reason=adapter.reason,
        )
        for adapter in report.adapters
    )
    return True


def _row_key(adapter: AdapterReport, incarnation: str) -> tuple[str, str, str, str, str]:
    return adapter.name, adapter.digest, adapter.state, adapter.reason, incarnation
