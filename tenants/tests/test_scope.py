from __future__ import annotations

import pytest

from tenants.models import Organization, Plan, Project
from tenants.scope import organization_scope, platform_scope

pytestmark = pytest.mark.django_db


def _two_organizations() -> tuple[Organization, Organization]:
    plan = Plan.objects.get(code="starter")
    with platform_scope():
        pair = [Organization.objects.create(name=n, slug=n, plan=plan) for n in ("acme", "globex")]
        for organization in pair:
            Project.objects.create(organization=organization, name="Default", slug="default")
    return pair[0], pair[1]


def test_nothing_is_visible_without_a_scope() -> None:
    _two_organizations()
    assert list(Organization.objects.all()) == []


def test_a_scope_shows_one_organization_only() -> None:
    acme, _ = _two_organizations()
    with organization_scope(acme.id):
        assert list(Organization.objects.all()) == [acme]
        assert {project.organization_id for project in Project.objects.all()} == {acme.id}


def test_a_nested_scope_gives_the_outer_one_back() -> None:
    acme, globex = _two_organizations()
    with organization_scope(acme.id):
        with platform_scope():
            assert Organization.objects.count() == 2
        with organization_scope(globex.id):
            assert list(Organization.objects.all()) == [globex]
        assert list(Organization.objects.all()) == [acme]
    assert Organization.objects.count() == 0
