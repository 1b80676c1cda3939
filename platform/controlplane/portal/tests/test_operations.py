from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from controlplane.portal.operations import Tile
from controlplane.portal.tests.conftest import House, signed_in
from serving.journal.health import Health, health_write
from serving.models import Artifact, ArtifactStatus, Deployment, DeploymentStatus
from tenants.scope import organization_scope
from tenants.tests.factories import make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator() -> Client:
    user = make_user("operator@tessera.example")
    user.is_staff = user.is_superuser = True
    user.save()
    return signed_in(user)


@pytest.fixture
def journal(settings: Settings, tmp_path: Path) -> Path:
    settings.TESSERA_HOME = tmp_path
    (tmp_path / "journal").mkdir()
    return tmp_path / "journal"


def tiles(client: Client) -> dict[str, Tile]:
    response: Any = client.get("/admin/")
    return {str(tile.label): tile for tile in response.context["tiles"]}


def test_what_is_not_ready_is_named_with_its_reason(house: House, operator: Client) -> None:
    with organization_scope(house.organization.id):
        Deployment.objects.update(status=DeploymentStatus.FAILED, reason="No engine holds it.")
        Artifact.objects.update(status=ArtifactStatus.REFUSED, rule="rank", reason="r is 512.")
    page = operator.get("/admin/").content.decode()
    for text in ("acme / support", "No engine holds it.", "acme / adapter", "r is 512."):
        assert text in page
    shown = tiles(operator)
    assert shown["Deployments ready"].figure == "0 / 1"
    assert shown["Deployments ready"].level == "look"
    assert shown["Uploads refused"].level == "look"


def test_nothing_to_look_at_is_said_as_well(operator: Client) -> None:
    assert all(tile.level == "good" for tile in tiles(operator).values())
    assert "None: all are ready." in operator.get("/admin/").content.decode()


def test_the_journals_lag_is_the_shippers_own_word(operator: Client, journal: Path) -> None:
    assert tiles(operator)["Journal behind by"].figure == "unknown"
    health_write(journal, Health(pid=1, at=1e12, unshipped_bytes=2000, oldest_unshipped_seconds=3))
    assert tiles(operator)["Journal behind by"].figure == "3.0 s"
    assert tiles(operator)["Journal behind by"].text == "2 KB not in the database yet"


def test_a_silent_shipper_is_not_taken_for_a_good_one(operator: Client, journal: Path) -> None:
    health_write(journal, Health(pid=1, at=0))
    assert tiles(operator)["Journal behind by"].level == "look"


def test_the_dashboard_is_for_operators(owner: Client) -> None:
    assert owner.get("/admin/").status_code in {302, 403}
