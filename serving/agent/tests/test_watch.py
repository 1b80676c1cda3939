"""What an engine is after each check."""

from __future__ import annotations

import pytest

from serving.agent.engine import Pulse
from serving.agent.watch import STRIKES, EngineState, next_state


@pytest.mark.parametrize(
    ("state", "pulse", "strikes", "expected"),
    [
        ("starting", "absent", 100, "starting"),  # it may take as long as it needs
        ("starting", "sick", 100, "starting"),
        ("starting", "alive", 0, "ready"),
        ("ready", "sick", 1, "ready"),
        ("ready", "sick", STRIKES, "failing"),
        ("ready", "absent", 1, "gone"),
        ("failing", "alive", 0, "ready"),
        ("failing", "absent", 4, "gone"),
        ("gone", "absent", 9, "gone"),
        ("gone", "alive", 0, "ready"),
    ],
)
def test_states(state: EngineState, pulse: Pulse, strikes: int, expected: EngineState) -> None:
    assert next_state(state, pulse, strikes) == expected
