from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from serving.models import BaseModel, Deployment, EngineReplica, Pool
from serving.tests import factories
from tenants.models import AuditEvent, User
from tenants.scope import platform_scope

pytestmark = pytest.mark.django_db

MODELS = [
    "basemodel",
    "artifact",
    "modelversion",
    "deployment",
    "placement",
    "cluster",
    "pool",
    "enginereplica",
    "documentsequence",
]


@pytest.fixture
def site() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("operator@example.com", "x" * 12))
    return client


@pytest.fixture
def deployment() -> Deployment:
    pool = factories.pool(factories.base())
    made = factories.deployed(on=pool)
    factories.proven_on(EngineReplica.objects.get(pool=pool), made)
    return made


def act(site: Client, model: str, action: str, pk: object) -> None:
    given = {"action": action, "_selected_action": [str(pk)]}
    answer = site.post(reverse(f"admin:serving_{model}_changelist"), given)
    assert answer.status_code == 302


def verbs() -> set[str]:
    with platform_scope():
        return set(AuditEvent.objects.values_list("verb", flat=True))


@pytest.mark.parametrize("model", MODELS)
def test_operators_see_every_object_and_add_none(
    site: Client, deployment: Deployment, model: str
) -> None:
    assert site.get(reverse(f"admin:serving_{model}_changelist")).status_code == 200
    assert site.get(reverse(f"admin:serving_{model}_add")).status_code == 403


def test_a_page_of_each_object_opens(site: Client, deployment: Deployment) -> None:
    pages = {
        "basemodel": BaseModel.objects.get().pk,
        "artifact": deployment.version.artifact_id,
        "modelversion": deployment.version_id,
        "deployment": deployment.pk,
        "pool": Pool.objects.get().pk,
        "enginereplica": EngineReplica.objects.get().pk,
    }
    for model, pk in pages.items():
        assert site.get(reverse(f"admin:serving_{model}_change", args=[pk])).status_code == 200


def test_deleting_a_deployment_is_the_same_service(site: Client, deployment: Deployment) -> None:
    act(site, "deployment", "remove", deployment.pk)
    with platform_scope():
        assert Deployment.objects.get().wanted == "deleted"
    assert "deployment.delete" in verbs()


def test_what_a_service_refuses_is_said_and_nothing_is_changed(
    site: Client, deployment: Deployment
) -> None:
    page = reverse("admin:serving_artifact_changelist")
    given = {"action": "forget", "_selected_action": [str(deployment.version.artifact_id)]}
    answer = site.post(page, given, follow=True)
    assert "A model version refers to this upload" in answer.content.decode()


def test_a_base_model_is_withdrawn_and_offered_again(site: Client, deployment: Deployment) -> None:
    base = BaseModel.objects.get()
    for action, enabled in (("withdraw", False), ("offer", True)):
        act(site, "basemodel", action, base.pk)
        assert BaseModel.objects.get().enabled is enabled
    assert {"base_model.withdraw", "base_model.offer"} <= verbs()


def test_a_pool_is_looked_at_now(site: Client, deployment: Deployment) -> None:
    pool = Pool.objects.get()
    act(site, "pool", "look", pool.pk)
    act(site, "deployment", "look", deployment.pk)
    assert Pool.objects.get().look_at > pool.look_at
    assert "pool.look" in verbs()


def test_a_pool_is_resized(site: Client, deployment: Deployment) -> None:
    pool = Pool.objects.get()
    page = reverse("admin:serving_pool_change", args=[pool.pk])
    site.post(page, {"replicas": 2, **_no_inlines("engine_replicas")})
    assert EngineReplica.objects.count() == 2
    assert "pool.resize" in verbs()
    site.post(page, {"replicas": 1000, **_no_inlines("engine_replicas")})
    assert Pool.objects.get().replicas == 2


def _no_inlines(prefix: str) -> dict[str, str]:
    return {f"{prefix}-TOTAL_FORMS": "0", f"{prefix}-INITIAL_FORMS": "0"}
