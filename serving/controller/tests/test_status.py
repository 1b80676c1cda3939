from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID

import pytest

from serving.controller.desired import PlacedAdapter
from serving.controller.observed import ObservedAdapter, ObservedReplica
from serving.controller.runtime import ItemState, ObservedItem, Role
from serving.controller.spec import AdapterSpec
from serving.controller.status import Status, deployment_status, is_proven_anywhere
from serving.models import DeploymentStatus, ReplicaAdapterState, ReplicaState, Wanted

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
NEW = AdapterSpec(name="new", digest="2")
OLD = AdapterSpec(name="old", digest="1")


def placed(
    adapter: AdapterSpec = NEW,
    *,
    wanted: Wanted = Wanted.RUNNING,
    number: int = 2,
    is_base: bool = False,
) -> PlacedAdapter:
    return PlacedAdapter(
        placement_id=UUID(int=number),
        deployment_id=UUID(int=9),
        version_id=UUID(int=number),
        adapter=adapter,
        is_base=is_base,
        version_label=f"support v{number}",
        is_wanted_version=adapter == NEW,
        wanted=wanted,
        superseded_at=None,
    )


def engine(state: ItemState = ItemState.RUNNING, *, failures: int = 0) -> ObservedItem:
    return ObservedItem(
        key="engine-tiny-0",
        owner="tiny-0",
        role=Role.ENGINE,
        state=state,
        failures=failures,
        detail="The engine ended (exit 1)." if state is ItemState.STOPPED else "",
        content={},
    )


RUNNING = engine()


def replica(
    state: ReplicaState = ReplicaState.READY,
    adapter: ReplicaAdapterState | None = None,
    *,
    item: ObservedItem | None = RUNNING,
    of: AdapterSpec = NEW,
    reason: str = "",
    silent: float = 1,
    started: float = 34,
) -> ObservedReplica:
    return ObservedReplica(
        name="tiny-0",
        engine=item,
        incarnation="01A",
        state=state,
        reason=reason,
        started_at=NOW - timedelta(seconds=started),
        reported_at=NOW - timedelta(seconds=silent),
        adapters={} if adapter is None else {of: ObservedAdapter(state=adapter, reason=reason)},
    )


def status(*replicas: ObservedReplica, trouble: str = "") -> Status:
    return deployment_status([placed()], replicas, trouble=trouble, now=NOW)


PROVEN, NO_EFFECT = ReplicaAdapterState.PROVEN, ReplicaAdapterState.NO_EFFECT
FAILED, FETCHING = ReplicaAdapterState.FAILED, ReplicaAdapterState.FETCHING
LOADING = ReplicaAdapterState.LOADING


@pytest.mark.parametrize(
    ("replicas", "word", "sentence"),
    [
        ([], "pending", "Waiting for an engine to start."),
        ([replica(item=None)], "pending", "Waiting for an engine to start."),
        ([replica(ReplicaState.ABSENT)], "loading", "The engine is starting (usually 45-60 s)."),
        (
            [replica(ReplicaState.STARTING)],
            "loading",
            "The engine is starting (34 s so far; usually 45-60 s).",
        ),
        ([replica(ReplicaState.READY)], "loading", "The engine has not begun to load the adapter"),
        ([replica(adapter=FETCHING)], "loading", "The engine is fetching the adapter."),
        ([replica(adapter=LOADING)], "loading", "The engine is loading the adapter."),
        ([replica(adapter=PROVEN)], "ready", ""),
        ([replica(adapter=NO_EFFECT)], "failed", "does not change the base model's answers"),
        ([replica(adapter=FAILED, reason="Rank 9 is odd.")], "failed", "Rank 9 is odd."),
        ([replica(ReplicaState.FAILING, reason="Out of memory.")], "loading", "Out of memory."),
        ([replica(ReplicaState.GONE)], "loading", "is being started again"),
        ([replica(item=engine(ItemState.STOPPED))], "loading", "(exit 1). It is being started"),
        (
            [replica(item=engine(ItemState.STOPPED, failures=7))],
            "failed",
            "It has ended 7 times in a row",
        ),
        ([replica(adapter=PROVEN), replica()], "ready", "Answers on 1 of 2 engines so far."),
        ([replica(adapter=FAILED), replica(adapter=LOADING)], "loading", "is loading the adapter"),
        ([replica(adapter=PROVEN, silent=90)], "ready", "Nothing was heard of the engine for 90 s"),
    ],
)
def test_what_a_tenant_is_told(replicas: list[ObservedReplica], word: str, sentence: str) -> None:
    told = status(*replicas)
    assert (told.status, sentence in told.reason) == (word, True), told


def test_an_engine_that_just_crashed_answers_for_nobody() -> None:
    """Its last report says ready and proven; the runtime says that it is starting again."""
    told = status(replica(adapter=PROVEN, item=engine(ItemState.STARTING)))
    assert told.status == DeploymentStatus.LOADING


def test_a_base_model_is_ready_as_soon_as_an_engine_answers() -> None:
    plain = placed(is_base=True)
    ready = deployment_status([plain], [replica()], trouble="", now=NOW)
    starting = deployment_status([plain], [replica(ReplicaState.STARTING)], trouble="", now=NOW)
    assert (ready.status, starting.status) == ("ready", "loading")


def test_a_base_model_is_let_go_at_once() -> None:
    plain = placed(is_base=True, wanted=Wanted.DELETED)
    gone = deployment_status([plain], [replica()], trouble="", now=NOW)
    assert "What is left of it is being removed" in gone.reason


def test_trouble_is_told_where_nothing_runs_and_only_there() -> None:
    trouble = "The engine is not installed on this machine."
    assert status(trouble=trouble) == Status(DeploymentStatus.FAILED, trouble)
    assert status(replica(adapter=PROVEN), trouble=trouble).status == DeploymentStatus.READY


def test_the_version_before_is_named_while_it_answers_for_the_new_one() -> None:
    both = [placed(OLD, number=1), placed()]
    told = deployment_status(both, [replica(adapter=PROVEN, of=OLD)], trouble="", now=NOW)
    assert told.status == DeploymentStatus.LOADING
    assert told.reason.startswith("support v1 goes on answering. The engine has not begun")


def test_a_deployment_that_goes_says_what_it_waits_for() -> None:
    gone = [placed(wanted=Wanted.DELETED)]
    held = deployment_status(gone, [replica(adapter=PROVEN)], trouble="", now=NOW)
    assert held.status == DeploymentStatus.DELETING
    assert "letting go" in held.reason


@pytest.mark.parametrize(
    ("state", "item_state", "adapter"),
    list(product(ReplicaState, ItemState, [None, *ReplicaAdapterState])),
)
def test_ready_is_said_only_of_what_runs_and_is_proven(
    state: ReplicaState, item_state: ItemState, adapter: ReplicaAdapterState | None
) -> None:
    there = replica(state, adapter, item=engine(item_state))
    is_ready = status(there).status is DeploymentStatus.READY
    proven = adapter is PROVEN and item_state is ItemState.RUNNING and state is ReplicaState.READY
    assert is_ready is proven
    assert (is_proven_anywhere([placed()], [there]) is not None) is proven
    assert is_ready or status(there).reason
