"""Uploads under attack and under bad luck: A17 and A20 to A23, F25, F26 of the attack list."""

from __future__ import annotations

import hashlib
import json
import random
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.utils import timezone

from serving.artifacts.folders import object_store
from serving.artifacts.tests import adapters
from serving.models import Artifact, ArtifactFile
from serving.services import artifact_validate, artifacts_sweep
from serving.services.artifacts import PART_BYTES
from serving.tests import uploads
from serving.tests.test_api import client_of, version_of
from tenants.access import Caller
from tenants.models import AuditEvent, Organization
from tenants.scope import platform_scope
from tenants.services import quota_set
from tenants.tests.factories import make_organization

pytestmark = pytest.mark.django_db
JSON = "application/json"


@pytest.fixture
def acme() -> Organization:
    uploads.base()
    return make_organization("acme")


@pytest.fixture
def client(acme: Organization) -> Client:
    return client_of(acme)


def large_files(folder: Path) -> dict[str, bytes]:
    """An adapter whose README makes nothing larger; its weights span three parts."""
    files = uploads.adapter_bytes(folder)
    files["adapter_model.safetensors"] = random.Random(1).randbytes(2 * PART_BYTES + 4321)
    return files


def rule_of(client: Client, artifact: str) -> str:
    """Complete, have it checked, and say which rule refused it."""
    assert uploads.complete(client, artifact).status_code == 202
    artifact_validate(UUID(artifact))
    found = uploads.show(client, artifact)
    assert found["status"] == "refused", found
    assert found["reason"]
    return str(found["rule"])


def stored() -> list[Path]:
    root = Path(settings.TESSERA_HOME) / "objects"
    return [path for path in root.rglob("*") if path.is_file()]


def staged(artifact: str) -> list[Path]:
    return list((Path(settings.TESSERA_HOME) / "uploads" / artifact).glob("*"))


# Names and content


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "adapter_model.bin",
        "model.pkl",
        "modeling_x.py",
        "../x",
        "/etc/passwd",
        "a\\..\\b",
        "adapter_config.json\x00",
        "x" * 300,
        "CON",
        "\u202egpj.exe",
        "ADAPTER_CONFIG.JSON",
        "adapter_config.json ",
        "weights.tar",
        "",
    ],
)
def test_a_file_name_that_is_not_on_the_list_is_refused(
    client: Client, tmp_path: Path, name: str
) -> None:
    body = uploads.declaration(uploads.adapter_bytes(tmp_path))
    body["files"].append({"name": name, "size_bytes": 1, "sha256": "0" * 64})
    answer = client.post("/api/v1/artifacts", body, content_type=JSON)
    assert answer.status_code == 422, answer.content
    with platform_scope():
        assert not Artifact.objects.exists()


@pytest.mark.parametrize("dropped", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_needs_both_files(client: Client, tmp_path: Path, dropped: str) -> None:
    files = uploads.adapter_bytes(tmp_path)
    del files[dropped]
    answer = client.post("/api/v1/artifacts", uploads.declaration(files), content_type=JSON)
    assert answer.json()["error"]["rule"] == "file_missing"


def test_a_file_named_twice_is_refused(client: Client, tmp_path: Path) -> None:
    body = uploads.declaration(uploads.adapter_bytes(tmp_path))
    body["files"].append(body["files"][0])
    answer = client.post("/api/v1/artifacts", body, content_type=JSON)
    assert answer.json()["error"]["rule"] == "file_duplicate"


def test_code_in_the_clothes_of_weights_is_refused_and_not_kept(
    client: Client, tmp_path: Path
) -> None:
    """A pickle whose loading would make a file: nothing makes it, and nothing of it stays."""
    marker = tmp_path / "owned"
    pickle = b"cposix\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    files = uploads.adapter_bytes(tmp_path, weights=pickle)
    before = stored()
    made = uploads.begin(client, files)
    uploads.send(client, made["id"], files)
    assert rule_of(client, made["id"])
    assert not marker.exists()
    assert stored() == before
    assert staged(made["id"]) == []


def test_a_config_for_another_base_is_refused(client: Client, tmp_path: Path) -> None:
    config = adapters.GOOD_CONFIG | {"base_model_name_or_path": "../../etc"}
    files = uploads.adapter_bytes(tmp_path, config=config)
    made = uploads.begin(client, files)
    uploads.send(client, made["id"], files)
    assert rule_of(client, made["id"]) == "base_model"
    answer = client.post("/api/v1/models", {"name": "x", "artifact": made["id"]}, content_type=JSON)
    assert answer.status_code == 409


def test_a_worker_survives_a_file_that_it_refuses(client: Client, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    hostile = uploads.upload(
        client, uploads.adapter_bytes(tmp_path, weights=(1 << 62).to_bytes(8, "little") + b"{}")
    )
    good = uploads.upload(client, uploads.adapter_bytes(tmp_path / "good"))
    artifacts_sweep()
    assert uploads.show(client, hostile)["status"] == "refused"
    assert uploads.show(client, good)["status"] == "ready"


# Parts


def test_parts_in_any_order_and_more_than_once_make_the_same_file(
    client: Client, tmp_path: Path
) -> None:
    files = large_files(tmp_path)
    made = uploads.begin(client, files)
    weights = files["adapter_model.safetensors"]
    parts = [weights[start : start + PART_BYTES] for start in range(0, len(weights), PART_BYTES)]
    name = "adapter_model.safetensors"
    for number in (2, 0, 1, 0):
        answer = uploads.put_part(client, made["id"], name, number, parts[number])
        assert answer.status_code == 204
    uploads.send(client, made["id"], {"adapter_config.json": files["adapter_config.json"]})
    shown = {file["name"]: file for file in uploads.show(client, made["id"])["files"]}
    assert shown[name]["parts_received"] == [0, 1, 2]
    assert uploads.complete(client, made["id"]).status_code == 202


def test_a_missing_part_is_named(client: Client, tmp_path: Path) -> None:
    files = large_files(tmp_path)
    made = uploads.begin(client, files)
    name = "adapter_model.safetensors"
    uploads.put_part(client, made["id"], name, 0, files[name][:PART_BYTES])
    uploads.send(client, made["id"], {"adapter_config.json": files["adapter_config.json"]})
    answer = uploads.complete(client, made["id"])
    assert (answer.status_code, answer.json()["error"]["rule"]) == (422, "part_missing")
    assert "the first is 1" in answer.json()["error"]["message"]
    assert uploads.show(client, made["id"])["status"] == "uploading"


def test_reordered_parts_are_found_out_and_can_be_sent_again(
    client: Client, tmp_path: Path
) -> None:
    files = large_files(tmp_path)
    made = uploads.begin(client, files)
    uploads.send(client, made["id"], files)
    name = "adapter_model.safetensors"
    first, second = files[name][:PART_BYTES], files[name][PART_BYTES : 2 * PART_BYTES]
    uploads.put_part(client, made["id"], name, 0, second)
    uploads.put_part(client, made["id"], name, 1, first)
    answer = uploads.complete(client, made["id"])
    assert (answer.status_code, answer.json()["error"]["rule"]) == (422, "file_digest")
    uploads.send(client, made["id"], files)
    assert uploads.complete(client, made["id"]).status_code == 202


def test_a_digest_that_was_declared_wrongly_is_found_out(client: Client, tmp_path: Path) -> None:
    files = uploads.adapter_bytes(tmp_path)
    body = uploads.declaration(files)
    body["files"][0]["sha256"] = hashlib.sha256(b"other").hexdigest()
    made = client.post("/api/v1/artifacts", body, content_type=JSON).json()
    uploads.send(client, made["id"], files)
    answer = uploads.complete(client, made["id"])
    assert (answer.status_code, answer.json()["error"]["rule"]) == (422, "file_digest")


@pytest.mark.parametrize("change", [-1, 1])
def test_a_part_of_another_length_is_not_kept(client: Client, tmp_path: Path, change: int) -> None:
    files = uploads.adapter_bytes(tmp_path)
    made = uploads.begin(client, files)
    config = files["adapter_config.json"]
    body = config[:-1] if change < 0 else config + b" "
    answer = uploads.put_part(client, made["id"], "adapter_config.json", 0, body)
    assert (answer.status_code, answer.json()["error"]["rule"]) == (422, "part_size")
    assert staged(made["id"]) == []


@pytest.mark.parametrize(("name", "number"), [("adapter_config.json", 1), ("README.md", 0)])
def test_a_part_that_was_not_declared_has_no_place(
    client: Client, tmp_path: Path, name: str, number: int
) -> None:
    made = uploads.begin(client, uploads.adapter_bytes(tmp_path))
    assert uploads.put_part(client, made["id"], name, number, b"x").status_code in {404, 422}


def test_a_complete_upload_takes_no_more_parts(client: Client, tmp_path: Path) -> None:
    files = uploads.adapter_bytes(tmp_path)
    artifact = uploads.upload(client, files)
    answer = uploads.put_part(
        client, artifact, "adapter_config.json", 0, files["adapter_config.json"]
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "upload_closed")


def test_completing_twice_is_as_once(client: Client, tmp_path: Path) -> None:
    artifact = uploads.upload(client, uploads.adapter_bytes(tmp_path))
    assert uploads.complete(client, artifact).status_code == 202
    artifact_validate(UUID(artifact))
    assert uploads.complete(client, artifact).json()["status"] == "ready"


def test_a_foreign_upload_is_not_found_and_stays_intact(client: Client, tmp_path: Path) -> None:
    files = uploads.adapter_bytes(tmp_path)
    made = uploads.begin(client, files)
    uploads.send(client, made["id"], files)
    other = client_of(make_organization("globex"))
    config = b"x" * len(files["adapter_config.json"])
    answers = [
        uploads.put_part(other, made["id"], "adapter_config.json", 0, config),
        uploads.complete(other, made["id"]),
        other.delete(f"/api/v1/artifacts/{made['id']}"),
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert uploads.complete(client, made["id"]).status_code == 202


# Storage


def set_storage(organization: Organization, size_bytes: int) -> None:
    quota_set(organization.id, caller=Caller.system("test"), limits={"storage_bytes": size_bytes})


def test_what_does_not_fit_is_refused_with_what_is_left(
    acme: Organization, client: Client, tmp_path: Path
) -> None:
    set_storage(acme, 10)
    body = uploads.declaration(uploads.adapter_bytes(tmp_path))
    answer = client.post("/api/v1/artifacts", body, content_type=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "storage_quota_exceeded")
    assert "10 of your organization's 10 are left" in answer.json()["error"]["message"]


@pytest.mark.django_db(transaction=True)
def test_parallel_uploads_never_exceed_the_storage_together(tmp_path: Path) -> None:
    uploads.base()
    organization = make_organization("acme")
    body = uploads.declaration(uploads.adapter_bytes(tmp_path))
    size = sum(file["size_bytes"] for file in body["files"])
    set_storage(organization, 3 * size + size // 2)
    client = client_of(organization)

    def begin(_: int) -> int:
        try:
            return client.post("/api/v1/artifacts", body, content_type=JSON).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(begin, range(10)))
    assert sorted(answers) == [201] * 3 + [403] * 7


def test_what_was_refused_or_given_up_counts_no_more(
    acme: Organization, client: Client, tmp_path: Path
) -> None:
    files = uploads.adapter_bytes(tmp_path)
    set_storage(acme, sum(map(len, files.values())) + 10)
    made = uploads.begin(client, files)
    assert client.delete(f"/api/v1/artifacts/{made['id']}").status_code == 204
    uploads.begin(client, files)


def test_equal_files_are_kept_once_and_until_nobody_refers_to_them(
    client: Client, tmp_path: Path
) -> None:
    files = uploads.adapter_bytes(tmp_path)
    other = client_of(make_organization("globex"))
    ours, theirs = uploads.upload(client, files), uploads.upload(other, files)
    artifacts_sweep()
    digest = hashlib.sha256(files["adapter_model.safetensors"]).hexdigest()
    client.delete(f"/api/v1/artifacts/{ours}")
    assert object_store().exists(digest)
    other.delete(f"/api/v1/artifacts/{theirs}")
    assert not object_store().exists(digest)


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """As on a full disk: this process cannot write a byte beyond."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_plainly_and_leaves_nothing(client: Client, tmp_path: Path) -> None:
    files = uploads.adapter_bytes(tmp_path)
    made = uploads.begin(client, files)
    with files_of_at_most(50):
        answer = uploads.put_part(
            client, made["id"], "adapter_config.json", 0, files["adapter_config.json"]
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_exhausted")
    assert staged(made["id"]) == []
    uploads.send(client, made["id"], files)
    assert uploads.complete(client, made["id"]).status_code == 202


def test_a_disk_that_is_full_at_the_end_refuses_nothing_for_good(
    client: Client, tmp_path: Path
) -> None:
    files = uploads.adapter_bytes(tmp_path)
    artifact = uploads.upload(client, files)
    before = stored()
    with files_of_at_most(50):
        artifact_validate(UUID(artifact))
    assert uploads.show(client, artifact)["status"] == "validating"
    assert stored() == before
    artifacts_sweep()
    assert uploads.show(client, artifact)["status"] == "ready"


def test_an_upload_that_was_left_alone_for_a_day_is_given_up(
    client: Client, tmp_path: Path
) -> None:
    files = uploads.adapter_bytes(tmp_path)
    idle, busy = (uploads.begin(client, files)["id"] for _ in range(2))
    uploads.send(client, idle, files)
    with platform_scope():
        Artifact.objects.filter(id=idle).update(active_at=timezone.now() - timedelta(hours=25))
    artifacts_sweep()
    assert client.get(f"/api/v1/artifacts/{idle}").status_code == 404
    assert client.get(f"/api/v1/artifacts/{busy}").status_code == 200
    assert not (Path(settings.TESSERA_HOME) / "uploads" / idle).exists()


def test_a_worker_that_died_at_it_is_followed_by_another(client: Client, tmp_path: Path) -> None:
    artifact = uploads.upload(client, uploads.adapter_bytes(tmp_path))
    with platform_scope():
        rows = Artifact.objects.filter(id=artifact)
        rows.update(claim_token=UUID(int=1), claim_expires_at=timezone.now() + timedelta(hours=1))
        artifacts_sweep()
        assert rows.get().status == "validating"
        rows.update(claim_expires_at=timezone.now() - timedelta(hours=1))
    artifacts_sweep()
    assert uploads.show(client, artifact)["status"] == "ready"


def test_everything_that_happened_is_in_the_record(client: Client, tmp_path: Path) -> None:
    artifact = uploads.upload(client, uploads.adapter_bytes(tmp_path))
    artifact_validate(UUID(artifact))
    version = version_of(client, artifact)
    client.delete(f"/api/v1/models/{version}")
    client.delete(f"/api/v1/artifacts/{artifact}")
    with platform_scope():
        verbs = set(AuditEvent.objects.values_list("verb", flat=True))
        assert not ArtifactFile.objects.exists()
    assert {
        "artifact.create",
        "artifact.complete",
        "artifact.accept",
        "model_version.create",
        "model_version.delete",
        "artifact.delete",
    } <= verbs


def test_sizes_beyond_reason_are_refused_before_a_byte_is_sent(
    client: Client, tmp_path: Path
) -> None:
    body = uploads.declaration(uploads.adapter_bytes(tmp_path))
    body["files"][1]["size_bytes"] = 1 << 45
    answer = client.post("/api/v1/artifacts", json.dumps(body), content_type=JSON)
    assert answer.json()["error"]["rule"] == "file_size"
