from __future__ import annotations

from serving.gateway import routing_metrics
from serving.gateway.ejection import Failure
from serving.gateway.metrics import Metrics, exposition
from serving.gateway.probing import Prober
from serving.gateway.tests.test_where import directory, endpoint, principal, wish
from serving.gateway.upstream import Upstream
from serving.gateway.where import Fleet


async def test_operators_see_loads_ejections_probes_and_retries_and_nothing_of_who_is_gone() -> (
    None
):
    fleet, metrics = Fleet(), Metrics()
    prober = Prober(fleet, Upstream(engine_key=b"k" * 32), quiet_seconds=10)
    both = directory(endpoint("a", "a"), endpoint("b", "a"))
    fleet.update(both, 0.0)
    target = both.target(principal(), "model")
    chosen = fleet.choose(target, wish("x"), now=1, tried=(), asked=0)
    assert chosen is not None
    chosen.take(wish("x"))
    fleet.failed(chosen, Failure.CUT, 1.0)
    fleet.choose(target, wish("x"), now=1, tried={chosen.endpoint.incarnation}, asked=1)
    prober.outcomes[False] += 1

    def told() -> str:
        routing_metrics.tell(metrics, fleet, prober)
        return exposition([metrics.snapshot(1.0)], now=1.0).decode()

    name = chosen.endpoint.replica
    text = told()
    for line in (
        'tessera_gateway_choices_total{by="home"} 1',
        'tessera_gateway_choices_total{by="load"} 1',
        'tessera_gateway_ejections_total{reason="cut"} 1',
        'tessera_gateway_retries_total{outcome="made"} 1',
        'tessera_gateway_probes_total{outcome="failed"} 1',
        f'tessera_gateway_replica_ejected{{replica="{name}"}} 1',
        f'tessera_gateway_replica_outstanding_requests{{replica="{name}"}} 1',
        f'tessera_gateway_replica_outstanding_tokens{{replica="{name}"}} 358',
        'tessera_gateway_retry_budget{pool="pool"} 9.2',
    ):
        assert line + "\n" in text
    fleet.update(directory(), 2.0)
    assert "replica=" not in told()
