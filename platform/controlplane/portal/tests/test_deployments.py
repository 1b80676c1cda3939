from __future__ import annotations

from uuid import uuid4

import pytest
from django.test import Client

from controlplane.portal.tests.conftest import House
from serving import selectors
from serving.models import Deployment, DeploymentStatus, ModelVersion, Wanted
from serving.tests import factories as serving
from tenants.scope import organization_scope

pytestmark = pytest.mark.django_db


def deployments(house: House) -> dict[str, Deployment]:
    with organization_scope(house.organization.id):
        return {each.slug: each for each in selectors.deployment_list(house.organization.id)}


def test_an_upload_becomes_a_version_and_a_deployment_at_once(house: House, owner: Client) -> None:
    fresh = serving.artifact(house.organization, house.base)
    form = {"model": f"artifact:{fresh.id}", "slug": "returns"}
    response = owner.post(house.address("deployments/new/"), form)
    made = deployments(house)["returns"]
    assert response.headers["Location"] == house.address(f"deployments/{made.id}/")
    assert made.version.artifact == fresh
    assert str(made.version) == "adapter v1"


def test_a_taken_name_leaves_no_version_behind(house: House, owner: Client) -> None:
    fresh = serving.artifact(house.organization, house.base)
    form = {"model": f"artifact:{fresh.id}", "slug": house.deployment.slug}
    response = owner.post(house.address("deployments/new/"), form)
    assert response.status_code == 409
    assert "already" in response.context["form"].errors["slug"][0]
    with organization_scope(house.organization.id):
        assert not ModelVersion.objects.filter(artifact=fresh).exists()


def test_a_version_can_be_deployed_under_a_second_name(house: House, owner: Client) -> None:
    form = {"model": f"version:{house.deployment.version_id}", "slug": "second"}
    owner.post(house.address("deployments/new/"), form)
    assert deployments(house)["second"].version_id == house.deployment.version_id


def test_a_base_model_can_be_deployed_as_it_is(house: House, owner: Client) -> None:
    owner.post(house.address("deployments/new/"), {"model": "base:tiny", "slug": "plain"})
    assert deployments(house)["plain"].version.base == house.base
    made = deployments(house)["plain"].id
    assert owner.get(house.address(f"deployments/{made}/")).status_code == 200


@pytest.mark.parametrize("model", ["", "version:nonsense", "base:none", f"artifact:{uuid4()}"])
def test_only_what_is_offered_can_be_chosen(house: House, owner: Client, model: str) -> None:
    response = owner.post(house.address("deployments/new/"), {"model": model, "slug": "x"})
    assert response.status_code == 422
    assert list(deployments(house)) == ["support"]


def test_the_form_suggests_a_name(house: House, owner: Client) -> None:
    fresh = serving.artifact(house.organization, house.base)
    page = owner.get(house.address(f"deployments/new/?model=artifact:{fresh.id}"))
    assert page.context["form"].initial["slug"] == "adapter"


def test_a_deployment_says_why_it_is_not_ready(house: House, owner: Client) -> None:
    with organization_scope(house.organization.id):
        Deployment.objects.update(status=DeploymentStatus.LOADING, reason="The engine starts.")
    for address in ("deployments/", f"deployments/{house.deployment.id}/", ""):
        page = owner.get(house.address(address)).content.decode()
        assert "Loading" in page
        assert "The engine starts." in page


def test_deleting_is_a_state_of_its_own(house: House, owner: Client) -> None:
    owner.post(house.address(f"deployments/{house.deployment.id}/delete/"))
    assert deployments(house)["support"].wanted == Wanted.DELETED
    page = owner.get(house.address(f"deployments/{house.deployment.id}/")).content.decode()
    assert "Deleting" in page
    assert 'id="delete"' not in page


def test_a_page_left_open_leads_back_once_the_deployment_is_gone(
    house: House, owner: Client
) -> None:
    response = owner.get(house.address(f"deployments/{uuid4()}/status/"))
    assert response.headers["HX-Redirect"] == house.address("deployments/")


def test_moving_leads_to_the_other_version(house: House, owner: Client) -> None:
    other = serving.version(serving.artifact(house.organization, house.base), name="other")
    address = house.address(f"deployments/{house.deployment.id}/move/")
    owner.post(address, {"version": str(other.id)})
    assert deployments(house)["support"].version_id == other.id


def test_moving_to_nonsense_is_refused(house: House, owner: Client) -> None:
    address = house.address(f"deployments/{house.deployment.id}/move/")
    assert owner.post(address, {"version": "v2"}).status_code == 422
