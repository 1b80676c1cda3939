from __future__ import annotations

import os
import subprocess
import sys
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
from serving.gateway.ejection import Failure, Health
from serving.gateway.errors import Busy, ModelNotFound
from serving.gateway.prefix import blocks
from serving.gateway.principals import Principal
from serving.gateway.replica import SLOW_START_SECONDS, Replica, Wish
from serving.gateway.what import Directory, Target, choose_arm
from serving.gateway.where import BOUND, Choice, Fleet, choose

PRICE = Price(version="price-1", input=100, cached_input=10, output=400)


def endpoint(name: str, *adapters: str, pool: str = "pool") -> Endpoint:
    return Endpoint(
        pool=pool,
        replica=name,
        incarnation=f"{name}-1",
        address=f"unix:/{name}",
        slots=64,
        adapters=tuple(ResidentAdapter(name=a, digest=f"d-{a}") for a in adapters),
    )


def replica(name: str, tokens: int = 0, rests_until: float = 0.0) -> Replica:
    return Replica(endpoint(name), tokens=tokens, rests_until=rests_until)


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


POOL = Pool(
    id="pool", cluster="c", base="base", context_tokens=100, default_output_tokens=10,
    slots_per_replica=64,
)  # fmt: skip


def directory(
    *endpoints: Endpoint, routes: tuple[Route, ...] = (), pools: tuple[Pool, ...] = (POOL,)
) -> Directory:
    return Directory(
        RoutesDocument(cell="x", pools=pools, routes=routes or (route(arm()),)),
        [EndpointsDocument(cluster="c", endpoints=endpoints)],
    )


def wish(*parts: str, tokens: int = 100, salt: str = "s") -> Wish:
    """A request whose prompt is made of texts of 1 KB each."""
    prompt = "".join(part * (1024 // len(part)) for part in parts)
    rest = b'{"prompt":' + prompt.encode()
    return Wish(
        adapter="a",
        blocks=blocks(rest, salt=salt, adapter="a"),
        prompt_tokens=len(rest) // 4,
        output_tokens=tokens,
    )


def where(replicas: list[Replica], wanted: Wish, *, now: float = 1, tried: str = "") -> Replica:
    choice = choose(replicas, wanted, now=now, tried={tried})
    assert choice is not None
    return choice.replica


def test_the_same_beginning_meets_the_same_replica_while_that_is_not_overloaded() -> None:
    replicas = [replica(str(n)) for n in range(5)]
    home = where(replicas, wish("x", "1"))
    for n in range(10):
        assert where(replicas, wish("x", str(n))) is home
    wishes = [wish("x", str(n)) for n in range(60)]
    loads = [where(replicas, wanted).take(wanted) for wanted in wishes]
    average = sum(r.tokens for r in replicas) / 5
    assert max(r.tokens for r in replicas) <= BOUND * average + 2 * (512 + 100)
    for load in loads:
        load.give_back()
    assert [(r.outstanding, r.tokens) for r in replicas] == [(0, 0)] * 5


def test_the_longest_known_beginning_wins_and_of_equals_the_least_loaded() -> None:
    replicas = [replica(str(n)) for n in range(4)]
    replicas[1].seen.add(wish("x").blocks)
    replicas[2].seen.add(wish("x", "y").blocks)
    assert where(replicas, wish("x", "y", "z")) is replicas[2]
    assert where(replicas, wish("x", "other")) in replicas[1:3]
    replicas[1].tokens = 10
    assert where(replicas, wish("x", "other")) is replicas[2]
    assert choose(replicas, wish("x"), now=1) == Choice(replicas[2], "prefix")


def test_affinity_is_worth_what_it_saves_and_no_more() -> None:
    busy, idle = replica("a"), replica("b")
    busy.seen.add(wish("x", "y").blocks)
    busy.tokens = 400  # 250 of it are within the bound of the average, 512 are saved
    assert where([busy, idle], wish("x", "y")) is busy
    busy.tokens = 2_000
    assert where([busy, idle], wish("x", "y")) is idle


def test_tenants_know_nothing_of_each_others_beginnings() -> None:
    replicas = [replica(str(n)) for n in range(8)]
    for one in replicas[:7]:
        one.seen.add(wish("x", salt="mine").blocks)
    homes = {where(replicas, wish("x", salt=f"other {n}")) for n in range(50)}
    assert len(homes) > 4
    assert not any(one.seen.depth(wish("x", salt="other").blocks) for one in replicas)


def test_a_replica_that_goes_moves_only_its_own_share() -> None:
    replicas = [replica(str(n)) for n in range(5)]
    names = [str(n) for n in range(300)]
    before = {name: where(replicas, wish("x", salt=name)) for name in names}
    after = {name: where(replicas[:-1], wish("x", salt=name)) for name in names}
    moved = [name for name in names if before[name] is not after[name]]
    assert {before[name] for name in moved} == {replicas[-1]}
    assert min(Counter(r.endpoint.replica for r in before.values()).values()) > 30


def test_home_is_the_same_in_every_process() -> None:
    """Hashes of texts differ from process to process; the ranks here must not."""
    script = (
        "from serving.gateway.tests.test_where import *;"
        "replicas = [replica(str(n)) for n in range(5)];"
        "print([where(replicas, wish(str(n))).endpoint.replica for n in range(40)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_resting_replicas_come_last_and_tried_or_ejected_ones_never() -> None:
    awake, resting = replica("a", tokens=9_000), replica("b", rests_until=10)
    assert where([awake, resting], wish("x"), now=5) is awake
    assert where([resting], wish("x"), now=5) is resting
    assert where([awake, resting], wish("x"), now=5, tried="a-1") is resting
    assert choose([awake], wish("x"), now=5, tried={"a-1"}) is None
    assert choose([], wish("x"), now=5) is None
    awake.health = Health(reason=Failure.CUT)
    assert where([awake, resting], wish("x"), now=5) is resting
    assert choose([awake], wish("x"), now=5) is None


def test_a_full_replica_is_passed_over_while_another_has_room() -> None:
    full, other = replica("a"), replica("b", tokens=50_000)
    full.outstanding = full.endpoint.slots
    full.seen.add(wish("x").blocks)
    assert where([full, other], wish("x")) is other
    other.outstanding = other.endpoint.slots
    assert where([full, other], wish("x")) is full


def test_a_new_replica_starts_slowly() -> None:
    """It gets little at first and its whole share after ``SLOW_START_SECONDS``."""

    def share(age: float) -> float:
        replicas = [replica(str(n)) for n in range(4)]
        replicas[0].new_at = 100.0
        for n in range(200):
            wanted = wish(str(n))
            where(replicas, wanted, now=100.0 + age).take(wanted)
        return replicas[0].tokens / sum(r.tokens for r in replicas) * 4

    assert share(0) < 0.2
    assert 0.4 < share(SLOW_START_SECONDS / 2) < 0.8
    assert 0.9 < share(SLOW_START_SECONDS) < 1.3


def test_a_replica_that_joins_is_new_and_one_found_at_the_start_is_not() -> None:
    fleet = Fleet()
    fleet.update(directory(endpoint("a", "a")), 100.0)
    fleet.update(directory(endpoint("a", "a"), endpoint("b", "a")), 200.0)
    assert [r.new_at for r in fleet] == [float("-inf"), 200.0]


def test_a_first_token_takes_the_prompt_out_of_the_count() -> None:
    one = replica("a")
    load = one.take(wish("x", tokens=100))
    assert one.tokens == 256 + 2 + 100
    load.prompt_is_done()
    load.prompt_is_done()
    assert one.tokens == 100
    again = one.take(wish("x", tokens=100))  # what it has computed before is not computed again
    assert one.tokens == 200 + 2
    load.give_back()
    again.give_back()
    assert (one.tokens, one.outstanding) == (0, 0)


def test_no_price_no_request_and_the_reason_is_ours() -> None:
    free = msgspec.structs.replace(route(arm()), price=None)
    made = directory(endpoint("a", "a"), routes=(free,))
    with pytest.raises(Busy) as caught:
        made.target(principal(), "model")
    assert (caught.value.status, caught.value.code) == (503, "no_price")
    assert made.routes_for(principal()) == [free], "it is there, and says why it does not serve"


def test_only_replicas_that_hold_the_very_adapter_count() -> None:
    fleet = Fleet()
    made = directory(endpoint("a", "a"), endpoint("b", "other"), endpoint("c", "a", pool="far"))
    fleet.update(made, 0.0)
    target = made.target(principal(), "model")
    assert [r.endpoint.replica for r in fleet.holding(target, 1)] == ["a"]
    other = Target(target.route, arm("a", pools=("pool",)), target.pool, PRICE)
    changed = msgspec.structs.replace(other, arm=msgspec.structs.replace(other.arm, digest="else"))
    assert fleet.holding(changed, 1) == []


def test_a_denied_adapter_is_not_asked_for_until_some_time_later() -> None:
    fleet = Fleet()
    made = directory(endpoint("a", "a"))
    fleet.update(made, 0.0)
    target = made.target(principal(), "model")
    [held] = fleet.holding(target, 1)
    held.withdraw("a", 1)
    assert fleet.holding(target, 5) == []
    assert fleet.holding(target, 12) == [held]


def test_counts_survive_a_new_document_and_go_with_their_incarnation() -> None:
    fleet = Fleet()
    fleet.update(directory(endpoint("a", "a"), endpoint("b", "a")), 0.0)
    for held in fleet:
        held.outstanding = 3
    assert fleet.update(directory(endpoint("a", "a")), 1.0) == ["b-1"]
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
