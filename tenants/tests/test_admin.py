from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from tenants.models import ApiKey, AuditEvent, Membership, Organization, Plan, Role, Scope, User
from tenants.scope import platform_scope
from tenants.tests.factories import make_key, make_member, make_organization, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator() -> User:
    return User.objects.create_superuser("operator@example.com", "x" * 12)


@pytest.fixture
def site(operator: User) -> Client:
    client = Client()
    client.force_login(operator)
    return client


@pytest.mark.parametrize(
    "model",
    ["organization", "project", "quota", "membership", "apikey", "auditevent", "plan", "user"],
)
def test_operators_see_every_object(site: Client, model: str) -> None:
    make_key(make_organization("acme"))
    for page in ("changelist", "add"):
        answer = site.get(reverse(f"admin:tenants_{model}_{page}"))
        closed = page == "add" and model in {"apikey", "auditevent"}
        assert answer.status_code == (403 if closed else 200)


def test_a_page_of_each_object_opens(site: Client) -> None:
    organization = make_organization("acme")
    key = make_key(organization).key
    for name, pk in (("organization", organization.pk), ("apikey", key.pk)):
        answer = site.get(reverse(f"admin:tenants_{name}_change", args=[pk]))
        assert answer.status_code == 200


def test_revoking_in_the_admin_is_the_same_service(site: Client, operator: User) -> None:
    key = make_key(make_organization(), Scope.INFERENCE).key
    given = {"action": "revoke", "_selected_action": [str(key.pk)]}
    site.post(reverse("admin:tenants_apikey_changelist"), given)
    with platform_scope():
        assert ApiKey.objects.get(pk=key.pk).revoked_at is not None
        event = AuditEvent.objects.get(verb="key.revoke")
    assert (event.actor_type, event.actor_id) == ("operator", str(operator.pk))


def test_suspending_and_resuming(site: Client) -> None:
    organization = make_organization()
    page = reverse("admin:tenants_organization_changelist")
    site.post(page, {"action": "suspend", "_selected_action": [str(organization.pk)]})
    with platform_scope():
        assert Organization.objects.get().suspended_at is not None
    site.post(page, {"action": "resume", "_selected_action": [str(organization.pk)]})
    with platform_scope():
        assert Organization.objects.get().suspended_at is None


def test_an_operator_founds_an_organization(site: Client) -> None:
    owner = make_user()
    plan = Plan.objects.get(code="scale")
    given = {"name": "Acme", "slug": "acme", "plan": plan.pk, "owner": str(owner.pk)}
    answer = site.post(reverse("admin:tenants_organization_add"), given)
    assert answer.status_code == 302
    with platform_scope():
        member = Membership.objects.get(organization__slug="acme")
    assert (member.user_id, member.role) == (owner.pk, Role.OWNER)


def test_a_refusal_is_shown_and_changes_nothing(site: Client) -> None:
    organization = make_organization()
    with platform_scope():
        member = Membership.objects.get(organization=organization)
    page = reverse("admin:tenants_membership_change", args=[member.pk])
    answer = site.post(page, {"role": "viewer"}, follow=True)
    assert "keeps at least one owner" in answer.text
    with platform_scope():
        assert Membership.objects.get(pk=member.pk).role == Role.OWNER


def test_removing_members_in_bulk(site: Client) -> None:
    organization = make_organization()
    member = make_member(organization, Role.VIEWER)
    given = {"action": "delete_selected", "_selected_action": [str(member.pk)], "post": "yes"}
    site.post(reverse("admin:tenants_membership_changelist"), given)
    with platform_scope():
        assert not Membership.objects.filter(pk=member.pk).exists()
        assert AuditEvent.objects.filter(verb="member.remove").exists()


def test_people_and_plans_are_saved_with_a_record(site: Client) -> None:
    site.post(reverse("admin:tenants_user_add"), {"email": "New@Example.com", "name": "New"})
    user = User.objects.get(email="new@example.com")
    assert not user.has_usable_password()
    plan = Plan.objects.get(code="starter")
    given = {field.name: getattr(plan, field.name) for field in Plan._meta.fields}
    site.post(reverse("admin:tenants_plan_change", args=[plan.pk]), {**given, "concurrency": 7})
    assert Plan.objects.get(code="starter").concurrency == 7
    with platform_scope():
        verbs = set(AuditEvent.objects.values_list("verb", flat=True))
    assert {"user.create", "plan.save"} <= verbs


def test_the_admin_is_closed_to_everybody_else() -> None:
    client = Client()
    client.force_login(make_user())
    assert client.get(reverse("admin:tenants_organization_changelist")).status_code in {302, 403}
