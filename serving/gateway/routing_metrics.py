"""What routing knows, as metrics: per replica where the fleet bounds their number."""

from __future__ import annotations

from collections import Counter

from serving.gateway.metrics import Metrics
from serving.gateway.probing import Prober
from serving.gateway.where import Fleet


def tell(metrics: Metrics, fleet: Fleet, prober: Prober) -> None:
    """Bring counters and gauges up to date."""
    for by, count in fleet.choices.items():
        metrics.total(f'tessera_gateway_choices_total{{by="{by}"}}', count)
    for reason, count in fleet.ejections.items():
        metrics.total(f'tessera_gateway_ejections_total{{reason="{reason}"}}', count)
    for may, count in fleet.retries.items():
        outcome = "made" if may else "refused"
        metrics.total(f'tessera_gateway_retries_total{{outcome="{outcome}"}}', count)
    for succeeded, count in prober.outcomes.items():
        outcome = "succeeded" if succeeded else "failed"
        metrics.total(f'tessera_gateway_probes_total{{outcome="{outcome}"}}', count)
    tokens: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    ejected: Counter[str] = Counter()
    for replica in fleet:
        name = replica.endpoint.replica
        tokens[name] += replica.tokens
        requests[name] += replica.outstanding
        ejected[name] += not replica.health.is_open
    metrics.gauges("tessera_gateway_replica_outstanding_tokens", "replica", tokens)
    metrics.gauges("tessera_gateway_replica_outstanding_requests", "replica", requests)
    metrics.gauges("tessera_gateway_replica_ejected", "replica", ejected)
    metrics.gauges("tessera_gateway_retry_budget", "pool", fleet.budgets())
