from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from serving.contracts import (
    Arm,
    Endpoint,
    EndpointsDocument,
    Pool,
    Price,
    ResidentAdapter,
    Route,
    RoutesDocument,
)
from serving.gateway.errors import Busy, ModelNotFound
from serving.gateway.principals import Principal
from serving.gateway.what import Directory, Target, choose_arm
from serving.gateway.where import BOUND, Fleet, Replica, choose

PRICE = Price(version="price-1", input=100, cached_input=10, output=400)


def endpoint(name: str, *adapters: str, pool: str = "pool") -> Endpoint:
    return Endpoint(
        pool=pool,
        replica=name,
        incarnation=f"{name}-1",
        address=f"unix:/{name}",
        slots=4,
        adapters=tuple(ResidentAdapter(name=a, digest=f"d-{a}") for a in adapters),
    )


def replica(name: str, outstanding: int = 0, rests_until: float = 0.0) -> Replica:
    return Replica(endpoint(name), outstanding=outstanding, rests_until=rests_until)


def arm(adapter: str = "a", *, weight: int = 10_000, pools: tuple[str, ...] = ("pool",)) -> Arm:
    return Arm(
        version=f"v-{adapter}", adapter=adapter, digest=f"d-{adapter}", weight=weight,
        arm="stable", pools=pools,
    )  # fmt: skip


def route(*arms: Arm, name: str = "model", project: str = "p", subject: str = "key") -> Route:
    return Route(
        organization="o", project=project, name=name, deployment="d", created=1, arms=arms,
        subject=subject, hash_salt="s", price=PRICE,
    )  # fmt: skip


def principal(**changes: object) -> Principal:
    values = {
        "key_id": "k", "organization": "o", "project": "p", "scopes": (), "models": (),
        "environment": "live", "version": 1, "active": True, "expires_at": None,
    }  # fmt: skip
    return Principal(**{**values, **changes})  # type: ignore[arg-type]


def directory(*endpoints: Endpoint, routes: tuple[Route, ...] = ()) -> Directory:
    pool = Pool(
        id="pool", cluster="c", base="base", context_tokens=100, default_output_tokens=10,
        slots_per_replica=4,
    )  # fmt: skip
    return Directory(
        RoutesDocument(cell="x", pools=(pool,), routes=routes or (route(arm()),)),
        [EndpointsDocument(cluster="c", endpoints=endpoints)],
    )


def test_the_same_affinity_meets_the_same_replica_while_that_is_not_overloaded() -> None:
    replicas = [replica(str(n)) for n in range(5)]
    home = choose(replicas, affinity="x", now=1)
    assert home is not None
    assert all(choose(replicas, affinity="x", now=1) is home for _ in range(10))
    for _ in range(40):
        chosen = choose(replicas, affinity="x", now=1)
        assert chosen is not None
        chosen.outstanding += 1
    average = sum(r.outstanding for r in replicas) / 5
    assert max(r.outstanding for r in replicas) <= BOUND * average + 1


def test_a_replica_that_goes_moves_only_its_own_share() -> None:
    replicas = [replica(str(n)) for n in range(5)]
    names = [str(n) for n in range(300)]
    before = {name: choose(replicas, affinity=name, now=1) for name in names}
    after = {name: choose(replicas[:-1], affinity=name, now=1) for name in names}
    moved = [name for name in names if before[name] is not after[name]]
    assert {before[name] for name in moved} == {replicas[-1]}
    assert min(Counter(r.endpoint.replica for r in before.values() if r).values()) > 30


def test_resting_and_tried_replicas_come_last_or_not_at_all() -> None:
    awake, resting = replica("a", outstanding=50), replica("b", rests_until=10)
    assert choose([awake, resting], affinity="x", now=5) is awake
    assert choose([resting], affinity="x", now=5) is resting
    assert choose([awake, resting], affinity="x", now=5, tried={"a-1"}) is resting
    assert choose([awake], affinity="x", now=5, tried={"a-1"}) is None
    assert choose([], affinity="x", now=5) is None


def test_only_replicas_that_hold_the_very_adapter_count() -> None:
    fleet = Fleet()
    made = directory(endpoint("a", "a"), endpoint("b", "other"), endpoint("c", "a", pool="far"))
    fleet.update(made)
    target = made.target(principal(), "model")
    assert [r.endpoint.replica for r in fleet.holding(target, 1)] == ["a"]
    other = Target(target.route, arm("a", pools=("pool",)), target.pool)
    changed = Target(other.route, msgspec.structs.replace(other.arm, digest="else"), other.pool)
    assert fleet.holding(changed, 1) == []


def test_a_denied_adapter_is_not_asked_for_until_some_time_later() -> None:
    fleet = Fleet()
    made = directory(endpoint("a", "a"))
    fleet.update(made)
    target = made.target(principal(), "model")
    [held] = fleet.holding(target, 1)
    held.withdraw("a", 1)
    assert fleet.holding(target, 5) == []
    assert fleet.holding(target, 12) == [held]


def test_counts_survive_a_new_document_and_go_with_their_incarnation() -> None:
    fleet = Fleet()
    fleet.update(directory(endpoint("a", "a"), endpoint("b", "a")))
    for held in fleet:
        held.outstanding = 3
    assert fleet.update(directory(endpoint("a", "a"))) == ["b-1"]
    assert [(r.endpoint.replica, r.outstanding) for r in fleet] == [("a", 3)]


def test_absent_foreign_and_not_allowed_are_the_same_to_the_caller() -> None:
    made = directory(endpoint("a", "a"), routes=(route(arm()), route(arm("b"), project="other")))
    for who, name in (
        (principal(), "nothing"),
        (principal(organization="x"), "model"),
        (principal(project="y"), "model"),
        (principal(models=("else",)), "model"),
    ):
        with pytest.raises(ModelNotFound) as caught:
            made.target(who, name)
        assert (
            str(caught.value)
            == f"The model '{name}' does not exist or you do not have access to it."
        )


def test_a_known_model_without_a_replica_says_when_to_come_back() -> None:
    with pytest.raises(Busy) as caught:
        directory().target(principal(), "model")
    assert caught.value.code == "model_not_ready"


def test_a_route_goes_to_the_first_of_its_pools_that_has_replicas() -> None:
    made = directory(endpoint("a", "a"), routes=(route(arm(pools=("gone", "pool"))),))
    assert made.target(principal(), "model").pool.id == "pool"


def test_weights_are_kept_and_a_subject_stays_with_its_version() -> None:
    split = route(arm("a", weight=9_000), arm("b", weight=1_000), arm("c", weight=0))
    keys = [principal(key_id=f"k{n}") for n in range(3_000)]
    chosen = [choose_arm(split, key).adapter for key in keys]
    assert chosen == [choose_arm(split, key).adapter for key in keys]
    counts = Counter(chosen)
    assert counts["c"] == 0
    assert 200 < counts["b"] < 400
    together = route(arm("a", weight=5_000), arm("b", weight=5_000), subject="organization")
    assert len({choose_arm(together, key).adapter for key in keys}) == 1


def test_models_are_listed_by_name_and_only_the_allowed_ones() -> None:
    made = directory(routes=(route(arm(), name="z"), route(arm(), name="b")))
    assert [r.name for r in made.routes_for(principal())] == ["b", "z"]
    assert [r.name for r in made.routes_for(principal(models=("z",)))] == ["z"]
    assert made.routes_for(principal(project="else")) == []
