from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.utils import timezone

from serving.contracts import AdapterReport, AgentReport
from serving.controller.claims import ClaimLost, claim_finish, claim_take
from serving.controller.reconcile import Outcome, pool_reconcile
from serving.controller.sweep import pools_due, sweep
from serving.controller.tests.fakes import FakeRuntime, Killed
from serving.models import (
    BaseModel,
    Deployment,
    EngineReplica,
    Placement,
    Pool,
    ReplicaAdapter,
    Wanted,
)
from serving.services import (
    deployment_create,
    deployment_delete,
    deployment_version_change,
    pool_resize,
    report_accept,
)
from serving.tests import factories
from tenants.access import Caller
from tenants.models import Organization
from tenants.scope import platform_scope

pytestmark = pytest.mark.django_db
SYSTEM = Caller.system("test")


class World:
    """A base, an organization with one deployment, and a runtime."""

    def __init__(self) -> None:
        self.base: BaseModel = factories.base()
        self.owner: Organization = factories.organization()
        self.runtime = FakeRuntime()
        self.deployment = self.deploy("support")
        self.pool_id: UUID = Pool.objects.get().id

    def version(self, number: int = 1) -> UUID:
        return factories.version(factories.artifact(self.owner, self.base), number=number).id

    def deploy(self, slug: str) -> UUID:
        version = factories.version(factories.artifact(self.owner, self.base), name=slug)
        made = deployment_create(self.owner.id, caller=SYSTEM, slug=slug, version_id=version.id)
        return made.id

    def reconcile(self) -> Outcome:
        return pool_reconcile(self.pool_id, runtime_of=lambda _: self.runtime)

    def report(self, incarnation: str, **states: str) -> None:
        """The agent says of each placed adapter, by the number of its version, what it is."""
        with platform_scope():
            placements = list(
                Placement.objects.select_related("version__artifact", "deployment").order_by("id")
            )
            name = EngineReplica.objects.get().name
        adapters = tuple(
            AdapterReport(
                name=placement.adapter,
                digest=placement.version.digest,
                state=states[f"v{placement.version.number}"],  # type: ignore[arg-type]
            )
            for placement in placements
            if f"v{placement.version.number}" in states
        )
        report_accept(
            AgentReport(
                version=1,
                replica=name,
                incarnation=incarnation,
                address=f"unix:/run/{incarnation}.sock",
                state="ready",
                adapters=adapters,
            )
        )

    def status(self) -> tuple[str, str]:
        with platform_scope():
            found = Deployment.objects.get(id=self.deployment)
            return found.status, found.reason

    def snapshot(self) -> dict[str, Any]:
        """Everything that reconcile may change, but for when it looks again."""
        with platform_scope():
            return {
                "items": sorted(self.runtime.items),
                "deployments": list(Deployment.objects.order_by("id").values("id", "status")),
                "placements": Placement.objects.count(),
                "replicas": list(EngineReplica.objects.order_by("name").values("name", "state")),
                "adapters": ReplicaAdapter.objects.count(),
                "claims": list(Pool.objects.values_list("claim_token", flat=True)),
            }


@pytest.fixture
def world() -> World:
    return World()


def test_placing_starts_an_engine_and_its_agent(world: World) -> None:
    assert world.reconcile() is Outcome.LOOK_AGAIN
    assert len(world.runtime.items) == 2
    assert world.status()[0] == "loading"


def test_a_proof_makes_the_deployment_ready(world: World) -> None:
    world.reconcile()
    world.report("01A", v1="proven")
    assert world.reconcile() is Outcome.DONE
    assert world.status() == ("ready", "")


def test_an_adapter_without_effect_never_becomes_ready(world: World) -> None:
    world.reconcile()
    world.report("01A", v1="no_effect")
    world.reconcile()
    status, reason = world.status()
    assert status == "failed"
    assert "does not change the base model's answers" in reason


def test_the_second_time_nothing_happens(world: World) -> None:
    world.reconcile()
    world.report("01A", v1="proven")
    world.reconcile()
    before, writes = world.snapshot(), world.runtime.writes
    world.reconcile()
    assert (world.snapshot(), world.runtime.writes) == (before, writes)


def test_an_engine_that_was_taken_away_comes_back_and_is_not_believed_before_it_proves(
    world: World,
) -> None:
    world.reconcile()
    world.report("01A", v1="proven")
    world.reconcile()
    world.runtime.items.clear()
    world.reconcile()
    assert len(world.runtime.items) == 2
    assert world.status()[0] == "loading"
    assert not ReplicaAdapter.objects.exists()
    assert EngineReplica.objects.get().state == "absent"


def test_drift_is_put_right(world: World) -> None:
    world.reconcile()
    Pool.objects.update(profile="cpu")
    BaseModel.objects.update(served_name="renamed")
    world.reconcile()
    assert {item.content["model"] for item in world.runtime.items.values()} == {"renamed"}


def test_a_new_version_takes_over_only_when_proven_and_the_old_one_goes_later(
    world: World,
) -> None:
    world.reconcile()
    world.report("01A", v1="proven")
    world.reconcile()
    second = world.version(number=2)
    deployment_version_change(world.owner.id, world.deployment, caller=SYSTEM, version_id=second)
    world.reconcile()
    status, reason = world.status()
    assert status == "loading"
    assert "v1 goes on answering" in reason
    world.report("01A", v1="proven", v2="proven")
    world.reconcile()
    assert world.status() == ("ready", "")
    with platform_scope():
        assert Placement.objects.count() == 2
        Placement.objects.exclude(superseded_at=None).update(
            superseded_at=timezone.now() - timedelta(minutes=1)
        )
    world.reconcile()
    with platform_scope():
        assert [placement.version_id for placement in Placement.objects.all()] == [second]


def test_going_back_to_the_version_before_keeps_it(world: World) -> None:
    world.reconcile()
    world.report("01A", v1="proven")
    with platform_scope():
        first = Deployment.objects.get().version_id
    second = world.version(number=2)
    for version in (second, first):
        deployment_version_change(
            world.owner.id, world.deployment, caller=SYSTEM, version_id=version
        )
    world.reconcile()
    assert world.status()[0] == "ready"


def test_a_deleted_deployment_goes_once_no_engine_holds_it(world: World) -> None:
    world.reconcile()
    world.report("01A", v1="proven")
    deployment_delete(world.owner.id, world.deployment, caller=SYSTEM)
    world.reconcile()
    status, reason = world.status()
    assert (status, "letting go" in reason) == ("deleting", True)
    world.report("01A")
    world.reconcile()
    with platform_scope():
        assert not Deployment.objects.exists()


def test_while_the_runtime_is_away_nothing_is_concluded(world: World) -> None:
    world.reconcile()
    world.report("01A", v1="proven")
    world.reconcile()
    deployment_delete(world.owner.id, world.deployment, caller=SYSTEM)
    world.runtime.away = True
    world.reconcile()
    with platform_scope():
        assert Deployment.objects.get().wanted == Wanted.DELETED
        assert "supervisor does not answer" in Pool.objects.get().reason
        assert ReplicaAdapter.objects.exists()


def test_an_emptied_pool_stays_warm_for_a_while_and_then_stops(world: World) -> None:
    world.reconcile()
    world.report("01A")
    deployment_delete(world.owner.id, world.deployment, caller=SYSTEM)
    world.reconcile()
    world.reconcile()
    assert len(world.runtime.items) == 2
    Pool.objects.update(empty_since=timezone.now() - timedelta(hours=1))
    world.reconcile()
    assert world.runtime.items == {}
    assert EngineReplica.objects.get().state == "absent"


def test_a_pool_that_never_had_anything_starts_nothing() -> None:
    pool, runtime = factories.pool(factories.base()), FakeRuntime()
    for _ in range(2):
        pool_reconcile(pool.id, runtime_of=lambda _: runtime)
    assert runtime.items == {}


def test_two_workers_do_not_work_on_one_pool(world: World) -> None:
    claim = claim_take(world.pool_id)
    assert claim is not None
    assert world.reconcile() is Outcome.BUSY
    assert world.runtime.writes == 0


def test_a_result_that_comes_too_late_is_dropped(world: World) -> None:
    claim = claim_take(world.pool_id)
    assert claim is not None
    Pool.objects.update(claim_token=uuid4())

    def write() -> None:
        Deployment.objects.update(status="ready")

    with pytest.raises(ClaimLost):
        claim_finish(claim, reason="", look_again_in=timedelta(0), write=write)
    assert world.status()[0] == "pending"


def test_an_expired_claim_is_taken_over(world: World) -> None:
    assert claim_take(world.pool_id) is not None
    Pool.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
    assert world.reconcile() is Outcome.LOOK_AGAIN


def test_what_changes_meanwhile_is_looked_at_again_at_once(world: World) -> None:
    Pool.objects.update(look_at=timezone.now() - timedelta(minutes=1))
    claim = claim_take(world.pool_id)
    assert claim is not None
    world.deploy("second")
    claim_finish(claim, reason="", look_again_in=timedelta(hours=1), write=lambda: None)
    assert pools_due() == [world.pool_id]


def test_the_sweep_finds_what_no_message_announced(world: World) -> None:
    sweep(lambda _: world.runtime)
    assert len(world.runtime.items) == 2
    assert pools_due() == []


def test_the_sweep_removes_what_belongs_to_nobody(world: World) -> None:
    world.reconcile()
    ours = set(world.runtime.items)
    engine = next(iter(world.runtime.items.values()))
    world.runtime.items["engine-stranger"] = replace(
        engine, key="engine-stranger", owner="stranger"
    )
    sweep(lambda _: world.runtime)
    assert set(world.runtime.items) == ours


def _worker_dies(world: World, *wrappers: Any) -> None:
    """Its claim is left behind until it expires; its connection's transaction is rolled back."""
    with ExitStack() as stack:
        for wrapper in wrappers:
            stack.enter_context(connection.execute_wrapper(wrapper))
        stack.enter_context(pytest.raises(Killed))
        world.reconcile()
    Pool.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", [0, 1])
def test_a_worker_killed_at_any_write_to_the_runtime_changes_nothing_in_the_end(
    world: World, step: int, *, after: bool
) -> None:
    world.runtime.steps_left, world.runtime.after = step, after
    _worker_dies(world)
    world.runtime.steps_left = None
    world.reconcile()
    world.report("01A", v1="proven")
    world.reconcile()
    assert world.status() == ("ready", "")
    assert len(world.runtime.items) == 2


def _writes_until_done(world: World) -> int:
    """How many statements that change rows one reconcile sends."""
    counted = 0

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal counted
        counted += sql.startswith(("UPDATE", "DELETE", "INSERT"))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(count):
        world.reconcile()
    return counted


def _killed_at(number: int) -> Any:
    left = number

    def kill(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal left
        if sql.startswith(("UPDATE", "DELETE", "INSERT")):
            if left == 0:
                raise Killed
            left -= 1
        return execute(sql, params, many, context)

    return kill


def _eventful() -> World:
    """A world in which one reconcile has much to write: one deployment ends, another is ready."""
    world = World()
    leaving = world.deploy("leaving")
    world.reconcile()
    world.report("01A", v1="proven")
    world.reconcile()
    deployment_delete(world.owner.id, leaving, caller=SYSTEM)
    with platform_scope():
        gone = Placement.objects.get(deployment_id=leaving).adapter
        ReplicaAdapter.objects.filter(name=gone).delete()
        Deployment.objects.filter(id=world.deployment).update(status="loading")
    return world


def _outcome(kill_at: int | None) -> tuple[dict[str, Any], int]:
    """How everything is after a reconcile, the one before it killed at that write; then undone."""
    savepoint = transaction.savepoint()
    world = _eventful()
    if kill_at is not None:
        _worker_dies(world, _killed_at(kill_at))
    writes = _writes_until_done(world)
    found = world.snapshot()
    transaction.savepoint_rollback(savepoint)
    found["deployments"] = [each["status"] for each in found["deployments"]]
    found["items"], found["replicas"] = len(found["items"]), len(found["replicas"])
    return found, writes


def test_a_worker_killed_at_any_write_to_the_database_changes_nothing_in_the_end() -> None:
    expected, writes = _outcome(None)
    assert expected["deployments"] == ["ready"]
    assert writes > 5
    for number in range(writes):
        assert _outcome(number)[0] == expected, f"killed at write {number}"


def test_a_smaller_pool_ends_its_last_engines_and_forgets_them(world: World) -> None:
    pool_resize(world.pool_id, caller=SYSTEM, replicas=2)
    world.reconcile()
    assert len(world.runtime.items) == 4
    pool_resize(world.pool_id, caller=SYSTEM, replicas=1)
    world.reconcile()
    assert len(world.runtime.items) == 2
    assert EngineReplica.objects.get().number == 0
