"""A base model served as it is: a version without an artifact, answered by every ready engine."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from controlplane.routes import routes_document
from serving.models import Cluster, EngineReplica, Placement, ReplicaAdapter, ReplicaState
from serving.selectors.fleet import agent_orders, endpoints_document
from serving.tests import uploads
from tenants.models import Organization, Scope
from tenants.scope import platform_scope
from tenants.tests.factories import make_key, make_organization

pytestmark = pytest.mark.django_db
JSON = "application/json"


@pytest.fixture
def acme() -> Organization:
    uploads.base()
    return make_organization("acme")


@pytest.fixture
def client(acme: Organization) -> Client:
    secret = make_key(acme, Scope.MANAGE).secret
    return Client(headers={"Authorization": f"Bearer {secret}"})


def plain_deployment(client: Client) -> str:
    version = client.post("/api/v1/models", {"name": "plain", "base": "tiny-llama"}, JSON).json()
    answer = client.post("/api/v1/deployments", {"slug": "plain", "version": version["id"]}, JSON)
    assert answer.status_code == 201, answer.content
    return str(answer.json()["id"])


def test_it_is_named_by_its_base_and_leads_to_the_engines_own_model(client: Client) -> None:
    plain_deployment(client)
    with platform_scope():
        base = Placement.objects.get().version.made_for
        [route] = routes_document(settings.TESSERA_CELL, at=timezone.now()).routes
    assert route.name == "plain"
    assert (route.arms[0].adapter, route.arms[0].digest) == (base.served_name, base.digest)


def test_every_ready_engine_has_its_base_and_no_agent_is_ordered_to_load_it(
    client: Client,
) -> None:
    plain_deployment(client)
    with platform_scope():
        base = Placement.objects.get().version.made_for
        replica = EngineReplica.objects.get()
        cluster = Cluster.objects.get()
        assert endpoints_document(cluster).endpoints == ()
        EngineReplica.objects.update(state=ReplicaState.READY, incarnation="01A", address="unix:/x")
        [endpoint] = endpoints_document(cluster).endpoints
        assert [(one.name, one.digest) for one in endpoint.adapters] == [
            (base.served_name, base.digest)
        ]
        assert agent_orders(replica.name).adapters == ()
        assert not ReplicaAdapter.objects.exists()


def test_asking_twice_for_a_base_gives_the_same_version(client: Client) -> None:
    body = {"name": "plain", "base": "tiny-llama"}
    first = client.post("/api/v1/models", body, JSON).json()
    again = client.post("/api/v1/models", body, JSON).json()
    assert first["id"] == again["id"]
    assert (first["base"], first["artifact"]) == ("tiny-llama", None)


@pytest.mark.parametrize("extra", [{}, {"base": "tiny-llama", "artifact": "0" * 32}])
def test_a_version_is_of_an_artifact_or_of_a_base(client: Client, extra: dict[str, str]) -> None:
    answer = client.post("/api/v1/models", {"name": "plain", **extra}, JSON)
    assert answer.status_code == 422
    assert answer.json()["error"]["rule"] == "artifact_or_base"
