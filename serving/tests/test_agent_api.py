from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from django.conf import settings
from django.test import Client

from kernel.ids import ulid
from serving.artifacts.folders import object_store
from serving.contracts import AdapterReport, AgentOrders, AgentReport
from serving.models import EngineReplica, ReplicaAdapter
from serving.tests import factories
from serving.tokens import replica_token
from tenants.scope import platform_scope

pytestmark = [pytest.mark.django_db, pytest.mark.urls("serving.agent_urls")]


def agent(replica: str) -> Client:
    token = replica_token(bytes.fromhex(settings.TESSERA_ENGINE_KEY), replica)
    return Client(headers={"Authorization": f"Bearer {token}"})


def orders(replica: str, query: str = "") -> AgentOrders:
    answer = agent(replica).get(f"/replicas/{replica}/orders{query}")
    assert answer.status_code == 200
    return msgspec.json.decode(answer.content, type=AgentOrders)


def report(
    replica: str,
    incarnation: str,
    *,
    state: str = "ready",
    adapters: tuple[AdapterReport, ...] = (),
) -> int:
    body = msgspec.json.encode(
        AgentReport(
            version=1,
            replica=replica,
            incarnation=incarnation,
            address=f"unix:/run/{incarnation}.sock",
            state=state,  # type: ignore[arg-type]
            adapters=adapters,
        )
    )
    answer = agent(replica).post(
        f"/replicas/{replica}/report", body, content_type="application/json"
    )
    return answer.status_code


PROVEN = AdapterReport(name="a", digest="d" * 64, state="proven")


def test_orders_name_the_adapters_of_the_pool_and_their_files() -> None:
    pool = factories.pool(factories.base())
    deployment = factories.deployed(on=pool)
    [wanted] = orders("tiny-0").adapters
    assert (wanted.name, wanted.digest) == factories.adapter_of(deployment)
    assert list(wanted.files) == ["adapter_model.safetensors"]


def test_known_orders_are_not_sent_again() -> None:
    factories.deployed(on=factories.pool(factories.base()))
    etag = orders("tiny-0").etag
    assert agent("tiny-0").get(f"/replicas/tiny-0/orders?etag={etag}&wait=0").status_code == 304


@pytest.mark.django_db(transaction=True)
def test_a_waiting_agent_hears_of_a_change() -> None:
    pool = factories.pool(factories.base())
    etag = orders("tiny-0").etag
    later = threading.Timer(0.5, _in_thread(lambda: factories.deployed(on=pool)))
    later.start()
    started = time.monotonic()
    assert len(orders("tiny-0", f"?etag={etag}&wait=20").adapters) == 1
    assert time.monotonic() - started < 10
    later.join()


def _in_thread(work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        from django.db import connection  # noqa: PLC0415 - the thread's own

        work()
        connection.close()

    return run


@pytest.mark.parametrize("token", ["", "Bearer x", "Basic abc", "Bearer é"])
def test_a_wrong_token_is_refused(token: str) -> None:
    factories.pool(factories.base())
    answer = Client().get("/replicas/tiny-0/orders", headers={"Authorization": token})
    assert answer.status_code == 401


def test_one_replica_cannot_speak_for_another() -> None:
    factories.pool(factories.base(), replicas=2)
    assert agent("tiny-0").get("/replicas/tiny-1/orders").status_code == 401


def test_an_unknown_replica_is_not_found() -> None:
    assert agent("nobody").get("/replicas/nobody/orders").status_code == 404


def test_a_replica_gets_the_files_it_is_ordered_to_hold_and_no_others(tmp_path: Path) -> None:
    base = factories.base()
    owner, pool = factories.organization(), factories.pool(base)
    data = b"weights of " + ulid().encode()
    source = tmp_path / "data"
    source.write_bytes(data)
    object_store().put(hashlib.sha256(data).hexdigest(), source)
    made = factories.artifact(owner, base, files={"adapter_model.safetensors": data})
    url = f"/replicas/tiny-0/artifacts/{made.digest}/adapter_model.safetensors"
    assert agent("tiny-0").get(url).status_code == 404
    factories.deployment(factories.version(made), on=pool)
    answer = agent("tiny-0").get(url)
    assert b"".join(answer.streaming_content) == data  # type: ignore[attr-defined]


def test_a_report_fills_the_residency_table() -> None:
    factories.pool(factories.base())
    incarnation = ulid()
    assert report("tiny-0", incarnation, adapters=(PROVEN,)) == 204
    replica = EngineReplica.objects.get()
    assert (replica.state, replica.incarnation) == ("ready", incarnation)
    assert replica.started_at is not None
    assert ReplicaAdapter.objects.get().incarnation == incarnation


def test_a_new_incarnation_has_nothing_resident() -> None:
    factories.pool(factories.base())
    report("tiny-0", "01A", adapters=(PROVEN,))
    report("tiny-0", "01B", state="starting")
    assert not ReplicaAdapter.objects.exists()
    assert EngineReplica.objects.get().state == "starting"


def test_a_late_report_of_a_replaced_incarnation_changes_nothing() -> None:
    factories.pool(factories.base())
    report("tiny-0", "01A", adapters=(PROVEN,))
    report("tiny-0", "01B", state="starting")
    assert report("tiny-0", "01A", adapters=(PROVEN,)) == 204
    assert EngineReplica.objects.get().incarnation == "01B"
    assert not ReplicaAdapter.objects.exists()


def test_a_clock_that_was_set_back_does_not_hide_a_new_incarnation() -> None:
    factories.pool(factories.base())
    report("tiny-0", "01B", adapters=(PROVEN,))
    report("tiny-0", "01A")
    assert EngineReplica.objects.get().incarnation == "01A"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"version":1}', b"[" * 10_000, b"x" * (1 << 21)])
def test_a_malformed_report_is_refused(body: bytes) -> None:
    factories.pool(factories.base())
    answer = agent("tiny-0").post("/replicas/tiny-0/report", body, content_type="application/json")
    assert answer.status_code == 422


def test_a_report_in_another_replicas_name_is_refused() -> None:
    factories.pool(factories.base(), replicas=2)
    body = msgspec.json.encode(
        AgentReport(version=1, replica="tiny-1", incarnation="01A", address="", state="ready")
    )
    answer = agent("tiny-0").post("/replicas/tiny-0/report", body, content_type="application/json")
    assert answer.status_code == 422
    with platform_scope():
        assert EngineReplica.objects.get(name="tiny-1").state == "absent"
