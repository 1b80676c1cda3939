"""The script against the model: the same calls in the same order, the same decisions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from serving.admission.script import SCRIPT, SHA
from serving.admission.tests.model import Model, Waiter

PREFIX = "model:"
TENANTS = ("ada", "bob", "cleo", "dan")
WEIGHTS = {"ada": 1, "bob": 1, "cleo": 2, "dan": 4}
BOUND, TENANT_BOUND = 12, 5
CODES = {1: "granted", 2: "queued"}

SLOTS = st.sampled_from((0, 1, 2, 3, 4, 4, 8, 9, 16))  # from eight on some are kept for premium

arrival = st.tuples(
    st.just("admit"),
    SLOTS,
    st.sampled_from(TENANTS),
    st.sampled_from((1, 2, 2, 3)),
    st.integers(1, 2000),
    st.integers(1, 1000),
)
ending = st.tuples(st.just("settle"), st.integers(0, 99), st.integers(1, 2000), st.integers(0, 999))
leaving = st.tuples(st.just("leave"), st.integers(0, 99))
pumping = st.tuples(st.just("pump"), SLOTS)
steps = st.lists(
    st.one_of(arrival, arrival, ending, ending, leaving, pumping), min_size=40, max_size=90
)


@dataclass
class Script:
    """One process that hears of its grants in the answer itself."""

    client: redis.Redis
    charged: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client.script_load(SCRIPT)

    def call(self, *operation: Any) -> tuple[list[Any], list[str]]:
        header = ["writer", "", "", "", 30_000, 30_000, [BOUND, 10**9, TENANT_BOUND, 10**9]]
        packed = msgspec.msgpack.encode([header, [list(operation)]])
        _, _, grants, answer = self.client.evalsha(SHA, 1, PREFIX, packed)
        self.charged.update({grant.decode(): charged for _, grant, charged in grants})
        return answer, [grant.decode() for _, grant, _ in grants]


def state_of(client: redis.Redis) -> tuple[dict[tuple[int, str], float], int, float | None]:
    counters = {}
    for tier in (1, 2, 3):
        found: dict[Any, Any] = client.hgetall(f"{PREFIX}queue:p:counters:{tier}")
        found.pop(b"=last", None)
        counters.update({(tier, one.decode()): float(found[one]) for one in found})
    passed: Any = client.hget(f"{PREFIX}queue:p:state", "passed")
    average: Any = client.hget(f"{PREFIX}queue:p:state", "average")
    counters = {key: counter for key, counter in counters.items() if counter}
    return counters, int(passed or 0), float(average) if average else None


@settings(
    max_examples=40,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # a failing sequence is short enough as it is
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps)
def test_the_script_decides_as_the_model_does(
    redis_client: redis.Redis, taken: list[tuple[Any, ...]]
) -> None:
    redis_client.flushall()
    script, model = Script(redis_client), Model(bound=BOUND, tenant_bound=TENANT_BOUND)
    known: dict[str, Waiter] = {}
    for number, step in enumerate(taken):
        if step[0] == "admit":
            _, slots, tenant, tier, *tokens = step
            grant, weight = f"grant-{number}", WEIGHTS[tenant]
            place = [tenant, tier, weight, 10**9, 1]
            demand = [tokens[0], tokens[1], 1, 0, 0]
            answer, others = script.call("admit", grant, "p", slots, [], demand, place, 0)
            known[grant] = Waiter(grant, tier, tenant, weight, tokens[0], tokens[1], number)
            if answer[0] == 1:
                script.charged[grant] = answer[2]
            said = CODES.get(answer[0]) or answer[1].decode()
            expected = model.admit(grant, slots, tier, tenant, weight, (tokens[0], tokens[1]))
            assert (said, others) == expected
        elif step[0] == "pump":
            assert script.call("pump", ["p", step[1]])[1] == model.pump(step[1])
        elif step[0] == "settle" and model.taken:
            grant = sorted(model.taken)[step[1] % len(model.taken)]
            waiter, charged, used = known[grant], script.charged[grant], (step[2], step[3])
            place = [waiter.tenant, waiter.tier, waiter.weight]
            service = used[0] + 2 * used[1]
            _, others = script.call(
                "settle", grant, "p", [], 0, sum(used), place, charged, service, used[1], []
            )
            assert others == model.settle(waiter, charged, used)
        elif step[0] == "leave" and (model.waiting or model.taken):
            names = sorted({one.grant for one in model.waiting} | model.taken)
            grant = names[step[1] % len(names)]
            assert script.call("leave", grant, "p", [], 0)[1] == model.leave(grant)
    assert state_of(redis_client) == (
        {key: counter for key, counter in model.counters.items() if counter},
        model.passed,
        model.average,
    )
    look, _ = script.call("look_pool", "p")
    assert look[1:3] == [len(model.taken), len(model.waiting)]
    assert look[3] == len(model.waiting)  # bytes


def test_nobody_starves_below_a_tier_that_never_ends(redis_client: redis.Redis) -> None:
    """Premium calls without end: standard and free still get one grant in eight between them."""
    script = Script(redis_client)
    demand = [10, 10, 1, 0, 0]
    for tier in (3, 2):
        for n in range(2):
            script.call("admit", f"{tier}-{n}", "p", 0, [], demand, ["t", tier, 1, 10**9, 1], 0)
    order: list[str] = []
    for n in range(40):
        premium = ["vip", 1, 1, 10**9, 1]
        script.call("admit", f"1-{n}", "p", 0, [], demand, premium, 0)
        _, others = script.call("pump", ["p", 1])
        order += others
        for grant in others:
            script.call("pump", ["p", 0])
            place = ["t", int(grant[0]), 1]
            script.call("settle", grant, "p", [], 0, 20, place, 30, 30, 10, [])
    below = [index for index, grant in enumerate(order) if grant[0] != "1"]
    assert below == [7, 15, 23, 31]
    assert [order[index] for index in below] == ["3-0", "3-1", "2-0", "2-1"]
