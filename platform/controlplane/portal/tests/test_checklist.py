from __future__ import annotations

import uuid

import pytest

from controlplane.portal.checklist import Progress, steps
from tenants.access import Caller
from tenants.models import Role, User

NOTHING = Progress(uploaded=False, deployed=False, has_key=False, called=False)
EVERYTHING = Progress(uploaded=True, deployed=True, has_key=True, called=True)


def caller(role: Role) -> Caller:
    person = User(email="someone@example.com")
    return Caller.member(person, organization_id=uuid.UUID(int=1), role=role, address=None)


def test_the_way_starts_with_a_model_and_ends_with_an_answer() -> None:
    views = [step.view for step in steps(NOTHING, caller(Role.OWNER))]
    assert views == [
        "portal:models-new",
        "portal:deployments-new",
        "portal:keys",
        "portal:playground",
    ]


def test_whoever_has_gone_it_is_not_shown_it() -> None:
    assert steps(EVERYTHING, caller(Role.OWNER)) == ()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.BILLING])
def test_nobody_is_shown_steps_they_cannot_take(role: Role) -> None:
    assert steps(NOTHING, caller(role)) == ()
