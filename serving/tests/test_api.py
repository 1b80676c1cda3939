from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from serving.models import Deployment, EngineReplica, Placement
from serving.services import artifact_validate
from serving.tests import uploads
from tenants.models import Organization, Role, Scope
from tenants.scope import platform_scope
from tenants.tests.factories import make_key, make_member, make_organization, make_user

pytestmark = pytest.mark.django_db
JSON = "application/json"


def client_of(organization: Organization, *scopes: Scope) -> Client:
    secret = make_key(organization, *(scopes or (Scope.MANAGE,))).secret
    return Client(headers={"Authorization": f"Bearer {secret}"})


def ready_artifact(client: Client, folder: Path) -> str:
    artifact = uploads.upload(client, uploads.adapter_bytes(folder))
    artifact_validate(UUID(artifact))
    assert uploads.show(client, artifact)["status"] == "ready"
    return artifact


def version_of(client: Client, artifact: str, name: str = "support") -> str:
    answer = client.post("/api/v1/models", {"name": name, "artifact": artifact}, content_type=JSON)
    assert answer.status_code == 201, answer.content
    return str(answer.json()["id"])


def deploy(client: Client, version: str, slug: str = "support") -> dict[str, str]:
    answer = client.post(
        "/api/v1/deployments", {"slug": slug, "version": version}, content_type=JSON
    )
    assert answer.status_code == 201, answer.content
    made: dict[str, str] = answer.json()
    return made


@pytest.fixture
def acme() -> Organization:
    uploads.base()
    return make_organization("acme")


@pytest.fixture
def client(acme: Organization) -> Client:
    return client_of(acme)


def test_from_an_upload_to_a_deployment(client: Client, tmp_path: Path) -> None:
    version = version_of(client, ready_artifact(client, tmp_path))
    made = deploy(client, version)
    assert (made["slug"], made["status"], made["wanted"]) == ("support", "pending", "running")
    with platform_scope():
        placement = Placement.objects.select_related("pool__base").get(deployment_id=made["id"])
        assert placement.pool.base.slug == "tiny-llama"
        assert EngineReplica.objects.filter(pool=placement.pool).count() == 1


def test_the_second_version_of_a_model_has_the_next_number(client: Client, tmp_path: Path) -> None:
    artifact = ready_artifact(client, tmp_path)
    first, second = version_of(client, artifact), version_of(client, artifact)
    numbers = [client.get(f"/api/v1/models/{one}").json()["number"] for one in (first, second)]
    assert numbers == [1, 2]


def test_an_unfinished_upload_is_no_version(client: Client, tmp_path: Path) -> None:
    made = uploads.begin(client, uploads.adapter_bytes(tmp_path))
    answer = client.post(
        "/api/v1/models", {"name": "support", "artifact": made["id"]}, content_type=JSON
    )
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "artifact_not_ready"


def test_names_are_unique_in_an_organization_and_free_in_another(
    client: Client, tmp_path: Path
) -> None:
    version = version_of(client, ready_artifact(client, tmp_path))
    deploy(client, version)
    again = client.post(
        "/api/v1/deployments", {"slug": "support", "version": version}, content_type=JSON
    )
    assert (again.status_code, again.json()["error"]["code"]) == (409, "slug_taken")
    other = client_of(make_organization("globex"))
    deploy(other, version_of(other, ready_artifact(other, tmp_path)))


def test_a_deployment_is_led_to_another_version(client: Client, tmp_path: Path) -> None:
    artifact = ready_artifact(client, tmp_path)
    made = deploy(client, version_of(client, artifact))
    (tmp_path / "2").mkdir()
    second = version_of(client, ready_artifact(client, tmp_path / "2"))
    answer = client.patch(
        f"/api/v1/deployments/{made['id']}", {"version": second}, content_type=JSON
    )
    assert answer.status_code == 200
    assert answer.json()["version"]["id"] == second
    with platform_scope():
        assert Placement.objects.filter(deployment_id=made["id"]).count() == 2


def test_a_deleted_deployment_answers_no_more_and_cannot_be_changed(
    client: Client, tmp_path: Path
) -> None:
    version = version_of(client, ready_artifact(client, tmp_path))
    url = f"/api/v1/deployments/{deploy(client, version)['id']}"
    assert client.delete(url).json()["status"] == "deleting"
    assert client.delete(url).status_code == 202
    answer = client.patch(url, {"version": version}, content_type=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "deployment_going")
    with platform_scope():
        assert Deployment.objects.get().wanted == "deleted"


def test_what_is_served_cannot_be_deleted(client: Client, tmp_path: Path) -> None:
    artifact = ready_artifact(client, tmp_path)
    version = version_of(client, artifact)
    deploy(client, version)
    assert client.delete(f"/api/v1/models/{version}").json()["error"]["code"] == "version_in_use"
    in_use = client.delete(f"/api/v1/artifacts/{artifact}")
    assert in_use.json()["error"]["code"] == "artifact_in_use"


@pytest.mark.parametrize("path", ["artifacts", "models", "deployments"])
def test_somebody_elses_rows_are_not_listed(client: Client, path: str, tmp_path: Path) -> None:
    deploy(client, version_of(client, ready_artifact(client, tmp_path)))
    assert len(client.get(f"/api/v1/{path}").json()["items"]) == 1
    other = client_of(make_organization("globex"))
    assert other.get(f"/api/v1/{path}").json()["items"] == []


def test_somebody_elses_rows_are_not_found(client: Client, tmp_path: Path) -> None:
    artifact = ready_artifact(client, tmp_path)
    version = version_of(client, artifact)
    deployment = deploy(client, version)["id"]
    other = client_of(make_organization("globex"))
    calls: list[Callable[[], object]] = [
        lambda: other.get(f"/api/v1/artifacts/{artifact}"),
        lambda: other.delete(f"/api/v1/artifacts/{artifact}"),
        lambda: uploads.put_part(other, artifact, "adapter_config.json", 0, b"x"),
        lambda: uploads.complete(other, artifact),
        lambda: other.get(f"/api/v1/models/{version}"),
        lambda: other.delete(f"/api/v1/models/{version}"),
        lambda: other.post(
            "/api/v1/models", {"name": "x", "artifact": artifact}, content_type=JSON
        ),
        lambda: other.post(
            "/api/v1/deployments", {"slug": "x", "version": version}, content_type=JSON
        ),
        lambda: other.get(f"/api/v1/deployments/{deployment}"),
        lambda: other.patch(
            f"/api/v1/deployments/{deployment}", {"version": version}, content_type=JSON
        ),
        lambda: other.delete(f"/api/v1/deployments/{deployment}"),
    ]
    assert [call().status_code for call in calls] == [404] * len(calls)  # type: ignore[attr-defined]
    assert client.get(f"/api/v1/deployments/{deployment}").json()["wanted"] == "running"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("deployments", {"slug": "x", "version": str(uuid4()), "status": "ready"}),
        ("models", {"name": "x", "artifact": str(uuid4()), "organization": str(uuid4())}),
        ("artifacts", {"name": "x", "base": "y", "files": [], "digest": "0" * 64}),
    ],
)
def test_fields_that_are_not_the_callers_to_set_are_refused(
    client: Client, path: str, body: dict[str, object]
) -> None:
    answer = client.post(f"/api/v1/{path}", body, content_type=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_field")


def test_an_inference_key_manages_nothing(acme: Organization) -> None:
    answer = client_of(acme, Scope.INFERENCE).get("/api/v1/deployments")
    assert answer.status_code == 403


def test_a_viewer_reads_and_does_not_write(acme: Organization) -> None:
    user = make_user()
    make_member(acme, Role.VIEWER, user)
    client = Client()
    client.force_login(user)
    assert client.get("/api/v1/deployments").status_code == 200
    answer = client.post("/api/v1/models", {}, content_type=JSON)
    assert answer.status_code == 403


def test_the_catalogue_is_listed(client: Client) -> None:
    [item] = client.get("/api/v1/base-models").json()["items"]
    assert item["slug"] == "tiny-llama"


def test_an_unknown_base_names_those_there_are(client: Client, tmp_path: Path) -> None:
    body = uploads.declaration(uploads.adapter_bytes(tmp_path)) | {"base": "no-such"}
    answer = client.post("/api/v1/artifacts", body, content_type=JSON)
    assert answer.status_code == 404
    assert "tiny-llama" in answer.json()["error"]["message"]


def test_full_weights_are_refused_with_the_way_out(client: Client, tmp_path: Path) -> None:
    body = uploads.declaration(uploads.adapter_bytes(tmp_path)) | {"kind": "weights"}
    answer = client.post("/api/v1/artifacts", body, content_type=JSON)
    assert answer.status_code == 422
    assert "LoRA" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["artifacts", "models", "deployments"])
def test_a_list_asks_as_often_whatever_its_length(
    client: Client, path: str, tmp_path: Path
) -> None:
    def queries(items: int) -> int:
        with CaptureQueriesContext(connection) as asked:
            assert len(client.get(f"/api/v1/{path}").json()["items"]) == items
        return len(asked)

    artifact = ready_artifact(client, tmp_path)
    deploy(client, version_of(client, artifact))
    queries(1)  # the first request of a key also notes that it was used
    before = queries(1)
    for number in range(3):
        deploy(client, version_of(client, artifact), f"support-{number}")
        uploads.begin(client, uploads.adapter_bytes(tmp_path))
    assert queries(4) == before
