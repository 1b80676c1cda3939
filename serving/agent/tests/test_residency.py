"""What to do next to each adapter, as a table over values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serving.agent.residency import (
    LASTING_RETRY_SECONDS,
    LONGEST_RETRY_SECONDS,
    Resident,
    changes,
    failed,
)
from serving.contracts import AdapterState, WantedAdapter


def adapter(name: str, digest: str = "a" * 64) -> WantedAdapter:
    return WantedAdapter(name=name, digest=digest, files={"adapter_config.json": "0" * 64})


ONE, TWO = adapter("one"), adapter("two")


def test_what_is_ordered_and_missing_is_brought_in_the_order_of_the_orders() -> None:
    todo = changes((TWO, ONE), {}, now=0)
    assert [resident.adapter for resident in todo.bring] == [TWO, ONE]
    assert todo.drop == ()


def test_what_is_there_and_not_ordered_is_dropped() -> None:
    residents = {"one": Resident(ONE, "proven"), "two": Resident(TWO, "failed")}
    assert changes((ONE,), residents, now=0).drop == ("two",)


def test_another_digest_under_the_same_name_is_another_adapter() -> None:
    newer = adapter("one", "b" * 64)
    todo = changes((newer,), {"one": Resident(ONE, "proven")}, now=0)
    assert todo.drop == ("one",)
    assert [resident.adapter for resident in todo.bring] == [newer]


@pytest.mark.parametrize("state", ["proven", "no_effect"])
def test_what_is_settled_is_left_alone(state: AdapterState) -> None:
    todo = changes((ONE,), {"one": Resident(ONE, state)}, now=0)
    assert (todo.bring, todo.drop, todo.look_again_at) == ((), (), None)


def test_a_failed_one_waits_for_its_time() -> None:
    waiting = Resident(ONE, "failed", again_at=10.0)
    assert changes((ONE,), {"one": waiting}, now=9.9).bring == ()
    assert changes((ONE,), {"one": waiting}, now=9.9).look_again_at == 10.0
    assert changes((ONE,), {"one": waiting}, now=10.0).bring == (waiting,)


def test_passing_failures_are_tried_again_ever_later_and_then_shown() -> None:
    resident, waits, states = Resident(ONE, "loading"), [], []
    for _ in range(8):
        resident = failed(resident, "The engine does not answer.", lasting=False, now=100)
        waits.append(resident.again_at - 100)
        states.append(resident.state)
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == LONGEST_RETRY_SECONDS
    assert states[:3] == ["loading", "loading", "failed"]


def test_a_lasting_failure_is_shown_at_once_and_tried_again_late() -> None:
    resident = failed(Resident(ONE, "fetching"), "No such artifact.", lasting=True, now=100)
    assert resident.state == "failed"
    assert resident.reason == "No such artifact."
    assert resident.again_at == 100 + LASTING_RETRY_SECONDS


def test_a_report_says_name_digest_state_and_reason() -> None:
    report = replace(Resident(ONE), state="no_effect", reason="Zeros.").report()
    assert (report.name, report.digest, report.state, report.reason) == (
        "one",
        "a" * 64,
        "no_effect",
        "Zeros.",
    )
