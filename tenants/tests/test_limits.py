"""Limits of organizations, projects and keys: who sets them, what is refused, that gateways learn."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from kernel.errors import DomainError, Forbidden, Invalid
from tenants import selectors, services
from tenants.models import ApiKey, AuditEvent, Billing, Organization, Plan, Quota, Role, User
from tenants.scope import organization_scope, platform_scope
from tenants.services import NewKey
from tenants.tests.factories import SYSTEM, caller_of, make_key, make_member, make_organization

pytestmark = pytest.mark.django_db

DOLLAR = 10**9


@pytest.fixture
def acme() -> Organization:
    return make_organization("acme")


@pytest.fixture
def key(acme: Organization) -> NewKey:
    return make_key(acme)


def version(key: NewKey) -> int:
    found = selectors.principal_by_key(key.secret)
    assert found is not None
    return found.version


def project_set(acme: Organization, key: NewKey, **limits: int | None) -> Quota:
    return services.project_limits_set(acme.id, key.key.project_id, caller=SYSTEM, limits=limits)


def key_set(acme: Organization, key: NewKey, **limits: int | None) -> ApiKey:
    return services.key_limits_set(acme.id, key.key.id, caller=SYSTEM, limits=limits)


def organization_set(acme: Organization, **limits: int | None) -> None:
    services.quota_set(acme.id, caller=SYSTEM, limits=limits)


def plan_change(acme: Organization) -> None:
    services.plan_save(acme.plan, caller=SYSTEM)


@pytest.mark.parametrize(
    "change",
    [
        lambda acme, _: services.plan_set(acme.id, caller=SYSTEM, plan="scale"),
        lambda acme, _: plan_change(acme),
        lambda acme, _: services.billing_set(acme.id, caller=SYSTEM, billing=Billing.PREPAID),
        lambda acme, _: organization_set(acme, concurrency=3),
        lambda acme, key: project_set(acme, key, concurrency=3),
        lambda acme, key: key_set(acme, key, concurrency=3),
    ],
    ids=["plan", "its numbers", "billing", "organization", "project", "key"],
)
def test_every_change_makes_the_principals_it_is_about_newer(
    acme: Organization, key: NewKey, change: Any
) -> None:
    """Whoever caches a principal takes the higher version: a change is never undone by a copy."""
    before = version(key)
    change(acme, key)
    assert version(key) > before


def test_limits_of_a_key_do_not_age_other_keys(acme: Organization, key: NewKey) -> None:
    other = make_key(acme)
    before = version(other)
    key_set(acme, key, concurrency=3)
    assert version(other) == before


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"requests_per_minute": 3_001}, "The organization allows 3,000 requests a minute;"),
        ({"tokens_per_minute": 3_000_001}, "The organization allows 3,000,000 tokens a minute;"),
        ({"concurrency": 101}, "The organization allows 100 calls at a time;"),
        ({"budget_nano": 51 * DOLLAR}, "The organization allows 50.00 US dollars a month;"),
        ({"concurrency": 0}, "This limit is 1 calls at a time to 1,000,000 calls at a time"),
        ({"budget_nano": 2**53}, "This limit is 0.00 US dollars a month to 9,007,199.25"),
        ({"budget_nano": -1}, "This limit is 0.00 US dollars"),
        ({"storage_bytes": 1}, "There is no limit called 'storage_bytes' here."),
    ],
)
def test_a_limit_that_would_never_be_met_is_refused(
    acme: Organization, key: NewKey, limits: dict[str, int], sentence: str
) -> None:
    organization_set(acme, budget_nano=50 * DOLLAR)
    for setting in (project_set, key_set):
        with pytest.raises(Invalid) as refusal:
            setting(acme, key, **limits)
        assert refusal.value.message.startswith(sentence)
        assert refusal.value.param == next(iter(limits))


def test_a_keys_limits_are_below_its_projects(acme: Organization, key: NewKey) -> None:
    project_set(acme, key, concurrency=5)
    with pytest.raises(Invalid, match="Its project allows 5 calls at a time"):
        key_set(acme, key, concurrency=6)
    assert key_set(acme, key, concurrency=5).concurrency == 5


def test_a_monthly_limit_of_who_pays_first_bounds_nothing(acme: Organization, key: NewKey) -> None:
    organization_set(acme, budget_nano=DOLLAR)
    services.billing_set(acme.id, caller=SYSTEM, billing=Billing.PREPAID)
    with organization_scope(acme.id):
        assert selectors.limits_get(acme.id).budget_nano is None
    assert project_set(acme, key, budget_nano=2 * DOLLAR).budget_nano == 2 * DOLLAR


def test_only_the_limits_that_are_named_change(acme: Organization, key: NewKey) -> None:
    services.quota_set(
        acme.id, caller=SYSTEM, project_id=key.key.project_id, limits={"storage_bytes": 9}
    )
    project_set(acme, key, concurrency=5, requests_per_minute=6)
    changed = project_set(acme, key, concurrency=None)
    assert (changed.concurrency, changed.requests_per_minute) == (None, 6)
    assert changed.storage_bytes == 9


@pytest.mark.parametrize("role", Role)
def test_owners_and_admins_set_limits(acme: Organization, key: NewKey, role: Role) -> None:
    caller = caller_of(acme, role)
    if role in {Role.OWNER, Role.ADMIN}:
        services.key_limits_set(acme.id, key.key.id, caller=caller, limits={"concurrency": 1})
    else:
        with pytest.raises(Forbidden):
            services.key_limits_set(acme.id, key.key.id, caller=caller, limits={"concurrency": 1})
    with pytest.raises(Forbidden):
        services.quota_set(acme.id, caller=caller, limits={"concurrency": 1_000})
    with pytest.raises(Forbidden):
        services.billing_set(acme.id, caller=caller, billing=None)


def test_a_rotated_key_keeps_its_limits(acme: Organization, key: NewKey) -> None:
    key_set(acme, key, concurrency=3, budget_nano=DOLLAR)
    new = services.key_rotate(acme.id, key.key.id, caller=SYSTEM).key
    assert (new.concurrency, new.budget_nano, new.tokens_per_minute) == (3, DOLLAR, None)


def test_changes_are_on_record(acme: Organization, key: NewKey) -> None:
    key_set(acme, key, concurrency=3)
    services.billing_set(acme.id, caller=SYSTEM, billing=Billing.PREPAID)
    with organization_scope(acme.id):
        details = {
            event.verb: event.detail
            for event in AuditEvent.objects.filter(verb__in=["limits.set", "billing.set"])
        }
    assert details == {
        "limits.set": {"name": "key", "concurrency": 3},
        "billing.set": {"before": "", "after": "prepaid"},
    }


def test_bearers_are_the_organization_its_projects_and_keys_with_limits(
    acme: Organization, key: NewKey
) -> None:
    make_key(acme)  # has no limits of its own
    ended = make_key(acme)
    key_set(acme, ended, concurrency=1)
    services.key_revoke(acme.id, ended.key.id, caller=SYSTEM)
    key_set(acme, key, budget_nano=DOLLAR)
    organization_set(acme, budget_nano=50 * DOLLAR)
    with organization_scope(acme.id):
        organization, project, limited = selectors.bearer_list(acme.id)
    assert (organization.scope, organization.requests_per_minute) == ("organization", 3_000)
    assert (organization.budget_nano, organization.is_budget_hard) == (50 * DOLLAR, False)
    assert (project.scope, project.name, project.concurrency) == ("project", "Default", None)
    assert (limited.scope, limited.id, limited.budget_nano) == ("key", key.key.id, DOLLAR)
    assert limited.is_budget_hard


def test_limits_through_rest(acme: Organization, key: NewKey) -> None:
    client = APIClient()
    client.force_login(make_member(acme, Role.ADMIN).user)
    for path in (f"projects/{key.key.project_id}", f"keys/{key.key.id}"):
        address = f"/api/v1/{path}/limits"
        nothing = dict.fromkeys(services.BEARER_FIELDS)
        assert client.get(address).json() == nothing
        changed = client.patch(address, {"budget_nano": DOLLAR}, format="json")
        assert (changed.status_code, changed.json()) == (200, {**nothing, "budget_nano": DOLLAR})
        assert client.get(address).json()["budget_nano"] == DOLLAR
        refused = client.patch(address, {"concurrency": 10_000}, format="json")
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "concurrency")
        unknown = client.patch(address, {"storage_bytes": 1}, format="json")
        assert unknown.status_code == 400


def test_rows_that_admission_could_not_add_up_are_refused_by_the_database(
    acme: Organization,
) -> None:
    with platform_scope():
        for change in ({"weight": 0}, {"tier": "gold"}, {"billing": "later"}):
            with pytest.raises(IntegrityError), transaction.atomic():
                Plan.objects.filter(id=acme.plan_id).update(**change)
        with pytest.raises(IntegrityError), transaction.atomic():
            Quota.objects.create(organization=acme, budget_nano=2**53)


def test_operators_set_how_an_organization_pays(acme: Organization) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("operator@example.com", "x" * 12))
    page = reverse("admin:tenants_organization_change", args=[acme.pk])
    given = {"name": "Acme", "plan": acme.plan_id, "billing": "prepaid"}
    assert client.post(page, given).status_code == 302
    with organization_scope(acme.id):
        assert selectors.organization_get(acme.id).billing_mode is Billing.PREPAID
        assert AuditEvent.objects.filter(verb="billing.set").count() == 1


@pytest.mark.parametrize("weight", [0, 1_001])
def test_a_plan_whose_weight_makes_no_share_is_refused(acme: Organization, weight: int) -> None:
    acme.plan.weight = weight
    with pytest.raises(DomainError, match="A weight is 1 to 1,000"):
        services.plan_save(acme.plan, caller=SYSTEM)
