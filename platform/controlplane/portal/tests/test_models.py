from __future__ import annotations

from uuid import uuid4

import pytest
from django.test import Client

from controlplane.portal.hints import hint_for
from controlplane.portal.tests.conftest import House
from serving.models import Artifact, ArtifactPart, ArtifactStatus
from serving.tests import factories as serving
from tenants.scope import organization_scope

pytestmark = pytest.mark.django_db


def become(house: House, status: ArtifactStatus, **fields: str) -> None:
    with organization_scope(house.organization.id):
        Artifact.objects.filter(id=house.artifact.id).update(status=status, **fields)


def test_a_refusal_shows_rule_reason_and_the_way_out(house: House, owner: Client) -> None:
    become(house, ArtifactStatus.REFUSED, rule="rank", reason="r is 512.")
    page = owner.get(house.address(f"models/{house.artifact.id}/")).content.decode()
    assert "<code>rank</code>" in page
    assert "r is 512." in page
    assert str(hint_for("rank")) in page


def test_a_rule_without_a_hint_has_its_reason_alone() -> None:
    assert hint_for("something_new") == ""


@pytest.mark.parametrize("status", [ArtifactStatus.VALIDATING, ArtifactStatus.UPLOADING])
def test_a_page_that_waits_looks_again(house: House, owner: Client, status: ArtifactStatus) -> None:
    become(house, status)
    assert b"hx-trigger" in owner.get(house.address(f"models/{house.artifact.id}/")).content
    again = owner.get(house.address(f"models/{house.artifact.id}/status/"))
    assert "HX-Refresh" not in again.headers


def test_a_finished_check_shows_the_whole_page_anew(house: House, owner: Client) -> None:
    response = owner.get(house.address(f"models/{house.artifact.id}/status/"))
    assert response.headers["HX-Refresh"] == "true"


def test_an_upload_that_was_left_says_how_much_arrived(house: House, owner: Client) -> None:
    become(house, ArtifactStatus.UPLOADING)
    with organization_scope(house.organization.id):
        file = house.artifact.files.get()
        ArtifactPart.objects.create(
            organization=house.organization, file=file, number=0, size_bytes=file.size_bytes
        )
    page = owner.get(house.address(f"models/{house.artifact.id}/")).content.decode()
    assert f"{file.size_bytes} B of {file.size_bytes} B arrived" in page
    assert f'data-artifact="{house.artifact.id}"' in page


def test_an_upload_nobody_refers_to_can_be_deleted(house: House, owner: Client) -> None:
    lonely = serving.artifact(house.organization, house.base)
    response = owner.post(house.address(f"models/{lonely.id}/delete/"))
    assert response.status_code == 302
    with organization_scope(house.organization.id):
        assert not Artifact.objects.filter(id=lonely.id).exists()


def test_an_upload_with_a_version_stays(house: House, owner: Client) -> None:
    response = owner.post(house.address(f"models/{house.artifact.id}/delete/"))
    assert response.status_code == 409
    assert b"artifact_in_use" in response.content


def test_an_id_of_nothing_is_not_found(house: House, owner: Client) -> None:
    response = owner.get(house.address(f"models/{uuid4()}/"))
    assert response.status_code == 404
    assert response.headers["X-Request-Id"].encode() in response.content
