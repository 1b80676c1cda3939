"""F15: an engine whose HTTP server lives and whose engine does not."""

from __future__ import annotations

import pytest

from serving.gateway.watchdog import Signs, stalled

POOL = ("a", "b")
QUIET = 10.0


def found(a: Signs, b: Signs | None, *, now: float = 100.0) -> list[str]:
    signs = {"a": a} if b is None else {"a": a, "b": b}
    return list(stalled(POOL, signs, now=now, quiet_seconds=QUIET))


WELL = Signs(next_since=99.5, heard_at=99.5)


@pytest.mark.parametrize(
    "signs",
    [
        Signs(next_since=89.0, heard_at=89.0),  # streams stopped
        Signs(next_since=80.0, heard_at=89.9),
        Signs(first_since=79.0, heard_at=10.0),  # idle before, and nothing since it was asked
        Signs(first_since=79.0),
        Signs(first_since=99.0, next_since=85.0, heard_at=85.0),
    ],
)
def test_a_replica_that_owes_and_gives_nothing_while_others_do_is_stalled(signs: Signs) -> None:
    assert found(signs, WELL) == ["a"]


@pytest.mark.parametrize(
    "signs",
    [
        Signs(heard_at=10.0),  # nothing is owed
        Signs(next_since=70.0, heard_at=95.0),  # one stream waits, others get on
        Signs(first_since=70.0, heard_at=95.0),  # long prompts wait, others get on
        Signs(first_since=85.0, heard_at=10.0),  # a long prompt takes its time
        WELL,
    ],
)
def test_a_replica_that_gets_on_or_owes_nothing_is_not(signs: Signs) -> None:
    assert found(signs, WELL) == []


def test_without_another_that_gets_on_nobody_is_accused() -> None:
    """A machine that was suspended finds everything quiet; single streams have their own limits."""
    silent = Signs(next_since=50.0, heard_at=50.0)
    assert found(silent, None) == []
    assert found(silent, silent) == []
    assert found(silent, Signs(heard_at=80.0)) == []
