from __future__ import annotations

import pytest

from controlplane.portal.states import look, why
from serving.models import ArtifactStatus, DeploymentStatus


@pytest.mark.parametrize("state", [*DeploymentStatus, *ArtifactStatus])
def test_every_state_has_a_look_of_its_own(state: str) -> None:
    assert look(state).icon != "circle-dashed" or state == "pending"


def test_an_unknown_state_is_shown_as_it_is_called() -> None:
    assert look("no_effect").word == "No effect"
    assert look("no_effect").tone == "quiet"


@pytest.mark.parametrize("state", list(DeploymentStatus))
def test_a_deployment_always_says_why(state: str) -> None:
    assert why(state, "")
    assert why(state, "The engine is gone.") == "The engine is gone."
