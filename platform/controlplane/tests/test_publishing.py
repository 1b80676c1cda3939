from __future__ import annotations

import msgspec
import pytest
from redis import Redis

from controlplane.publishing import Publisher
from serving.contracts import (
    EndpointsDocument,
    Kind,
    RoutesDocument,
    SignedDocument,
    cell_stream,
    document_key,
    open_document,
)
from serving.models import Deployment, EngineReplica, Wanted
from serving.tests import factories
from tenants.scope import platform_scope

pytestmark = pytest.mark.django_db
KEY = b"k" * 32


@pytest.fixture
def publisher(redis_client: Redis) -> Publisher:
    return Publisher(redis_client, cell="local", key=KEY, clock=lambda: 1000.0)


def read(client: Redis, kind: Kind) -> tuple[SignedDocument, RoutesDocument | EndpointsDocument]:
    raw = client.get(document_key(kind, "local"))
    assert isinstance(raw, bytes)
    return open_document(raw, key=KEY)


def routes(client: Redis) -> RoutesDocument:
    document = read(client, "routes")[1]
    assert isinstance(document, RoutesDocument)
    return document


def endpoints(client: Redis) -> EndpointsDocument:
    document = read(client, "endpoints")[1]
    assert isinstance(document, EndpointsDocument)
    return document


def test_a_proven_deployment_can_be_joined_by_pool(
    publisher: Publisher, redis_client: Redis
) -> None:
    pool = factories.pool(factories.base())
    deployment = factories.deployed(on=pool)
    factories.proven_on(EngineReplica.objects.get(pool=pool), deployment)
    publisher.publish()
    [route] = routes(redis_client).routes
    [arm] = route.arms
    [endpoint] = endpoints(redis_client).endpoints
    assert (route.name, arm.weight) == ("support", 10_000)
    assert endpoint.pool in arm.pools
    assert (arm.adapter, arm.digest) in {
        (adapter.name, adapter.digest) for adapter in endpoint.adapters
    }


def test_looking_again_writes_nothing(publisher: Publisher, redis_client: Redis) -> None:
    factories.deployed(on=factories.pool(factories.base()))
    assert publisher.publish() == 2
    assert publisher.publish() == 0
    assert redis_client.xlen(cell_stream("local")) == 2


def test_an_emptied_redis_is_filled_again_with_a_higher_sequence(
    publisher: Publisher, redis_client: Redis
) -> None:
    factories.pool(factories.base())
    publisher.publish()
    before = read(redis_client, "routes")[0].sequence
    redis_client.flushall()
    assert publisher.publish() == 2
    assert read(redis_client, "routes")[0].sequence > before


def test_an_older_document_that_came_back_is_replaced(
    publisher: Publisher, redis_client: Redis
) -> None:
    """A publisher that was stopped in mid-write may write late; the next look puts it right."""
    pool = factories.pool(factories.base())
    publisher.publish()
    late = redis_client.get(document_key("routes", "local"))
    factories.deployed(on=pool)
    publisher.publish()
    newest = read(redis_client, "routes")[0].sequence
    assert isinstance(late, bytes)
    redis_client.set(document_key("routes", "local"), late)
    assert publisher.publish() == 1
    assert read(redis_client, "routes")[0].sequence > newest


@pytest.mark.parametrize(
    "there",
    [
        b"nonsense",
        msgspec.json.encode(
            SignedDocument(
                kind="routes", scope="local", version=1, sequence=99, issued_at=0, body="{}", mac=""
            )
        ),
    ],
)
def test_what_nobody_signed_is_replaced(
    publisher: Publisher, redis_client: Redis, there: bytes
) -> None:
    redis_client.set(document_key("routes", "local"), there)
    publisher.publish()
    assert routes(redis_client).cell == "local"


def test_a_deleted_deployment_has_no_route(publisher: Publisher, redis_client: Redis) -> None:
    deployment = factories.deployed(on=factories.pool(factories.base()))
    with platform_scope():
        Deployment.objects.filter(id=deployment.id).update(wanted=Wanted.DELETED)
    publisher.publish()
    assert routes(redis_client).routes == ()
