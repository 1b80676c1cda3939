"""Whether the demo's models answer: the rows of the last run are not believed."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from controlplane.embedded.announcement import Demo, DemoOrganization
from controlplane.readiness import HOPELESS_AFTER, STARTING, readiness
from serving.models import Deployment, DeploymentStatus, EngineReplica
from serving.tests import factories
from tenants.scope import platform_scope

pytestmark = pytest.mark.django_db

NOW = timezone.now()
BEFORE, AFTER = NOW - timedelta(minutes=5), NOW + timedelta(seconds=1)


def demo_of(deployment: Deployment) -> Demo:
    login = DemoOrganization(
        name="Acme",
        slug=deployment.organization.slug,
        email="",
        password="",
        key="",
        model=deployment.slug,
        question="",
    )
    return Demo(operator_email="", operator_password="", organizations=(login,))


def deployed(status: DeploymentStatus, *, reason: str = "") -> Deployment:
    with platform_scope():
        made = factories.deployed(on=factories.pool(factories.base()))
        Deployment.objects.filter(id=made.id).update(status=status, reason=reason)
        return Deployment.objects.select_related("organization").get(id=made.id)


def proven(deployment: Deployment, *, reported_at: datetime) -> None:
    with platform_scope():
        replica = EngineReplica.objects.get()
        factories.proven_on(replica, deployment)
        EngineReplica.objects.filter(id=replica.id).update(reported_at=reported_at)


def test_a_model_answers_once_an_engine_of_this_run_has_proven_it() -> None:
    made = deployed(DeploymentStatus.READY)
    proven(made, reported_at=AFTER)
    found = readiness(demo_of(made), since=NOW)
    assert (found.deployed, found.trouble, found.is_settled) == (1, "", True)


def test_what_an_engine_said_in_the_last_run_does_not_count() -> None:
    made = deployed(DeploymentStatus.READY)
    proven(made, reported_at=BEFORE)
    found = readiness(demo_of(made), since=NOW)
    assert (found.trouble, found.is_settled) == (STARTING, False)


def test_a_model_on_its_way_says_its_reason() -> None:
    made = deployed(DeploymentStatus.LOADING, reason="The engine is loading the adapter.")
    found = readiness(demo_of(made), since=NOW)
    assert (found.trouble, found.is_settled) == ("The engine is loading the adapter.", False)


def test_a_failure_that_lasts_ends_the_wait() -> None:
    made = deployed(DeploymentStatus.FAILED, reason="No effect.")
    with platform_scope():
        Deployment.objects.filter(id=made.id).update(changed_at=BEFORE)
    assert not readiness(demo_of(made), since=timezone.now()).is_settled
    found = readiness(demo_of(made), since=timezone.now() - 2 * HOPELESS_AFTER)
    assert (found.trouble, found.is_settled) == ("No effect.", True)


def test_a_demo_without_deployments_is_settled() -> None:
    made = deployed(DeploymentStatus.READY)
    with platform_scope():
        Deployment.objects.filter(id=made.id).update(slug="other")
    found = readiness(demo_of(made), since=NOW)
    assert (found.deployed, found.is_settled) == (0, True)
