from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from allauth.account.models import EmailAddress
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from tenants.models import ApiKey, Membership, Organization, Role, Scope, User
from tenants.scope import organization_scope, platform_scope
from tenants.tests.factories import PASSWORD, make_key, make_member, make_organization, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme() -> Organization:
    return make_organization("acme")


@pytest.fixture
def owner(acme: Organization) -> APIClient:
    client = APIClient()
    client.force_login(make_member(acme, Role.OWNER).user)
    return client


def _with_key(secret: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


# Signing in


def _csrf_client() -> tuple[APIClient, str]:
    client = APIClient(enforce_csrf_checks=True)
    return client, client.get("/api/v1/session").json()["csrf_token"]


def _sign_in(client: APIClient, token: str, email: str, password: str) -> Any:
    given = {"email": email, "password": password}
    return client.post("/api/v1/session", given, headers={"X-CSRFToken": token})


def test_signing_in_and_out(redis_client: redis.Redis) -> None:
    user = make_user("ann@example.com", password=PASSWORD)
    make_organization("acme", owner=user)
    client, token = _csrf_client()
    answer = _sign_in(client, token, "Ann@Example.com", PASSWORD)
    assert answer.status_code == 200
    assert answer.json()["user"]["email"] == "ann@example.com"
    assert [each["role"] for each in answer.json()["organizations"]] == ["owner"]
    assert client.get("/api/v1/members").status_code == 200
    token = answer.json()["csrf_token"]
    assert client.delete("/api/v1/session", headers={"X-CSRFToken": token}).status_code == 204
    assert client.get("/api/v1/members").status_code == 401


def test_signing_in_makes_a_new_session(redis_client: redis.Redis) -> None:
    make_user("ann@example.com", password=PASSWORD)
    client, token = _csrf_client()
    client.session["planted"] = True
    before = client.session.session_key
    _sign_in(client, token, "ann@example.com", PASSWORD)
    assert client.session.session_key != before


@pytest.mark.parametrize("email", ["ann@example.com", "nobody@example.com", "gone@example.com"])
def test_every_failed_sign_in_looks_the_same(redis_client: redis.Redis, email: str) -> None:
    make_user("ann@example.com", password=PASSWORD)
    gone = make_user("gone@example.com", password="wrong")
    User.objects.filter(id=gone.id).update(is_active=False)
    client, token = _csrf_client()
    answer = _sign_in(client, token, email, "wrong")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "sign_in_refused"


def test_failed_sign_ins_are_limited_per_account(redis_client: redis.Redis) -> None:
    make_user("ann@example.com", password=PASSWORD)
    client, token = _csrf_client()
    codes = [_sign_in(client, token, "ann@example.com", "wrong").status_code for _ in range(5)]
    assert codes == [401] * 5
    refused = _sign_in(client, token, "ann@example.com", PASSWORD)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "300")


def test_signing_in_needs_the_csrf_token() -> None:
    make_user("ann@example.com", password=PASSWORD)
    client, _ = _csrf_client()
    answer = client.post("/api/v1/session", {"email": "ann@example.com", "password": PASSWORD})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "csrf_failed")


def test_a_session_changes_nothing_without_the_csrf_token(acme: Organization) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(make_member(acme, Role.OWNER).user)
    assert client.post("/api/v1/projects", {"name": "x"}).status_code == 403


# Keys at the door


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer x",
        "Bearer ' OR '1'='1",
        "Bearer tsr_live_" + "a" * 27 + "_000000",
        "Bearer " + "k" * 1_000_000,
        "Bearer tsr_live_\x00",
    ],
)
def test_a_bad_key_is_refused_before_the_database(
    header: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    """A02."""
    with django_assert_num_queries(0):
        answer = APIClient().get("/api/v1/keys", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_revoked_unknown_and_expired_keys_are_refused_alike(acme: Organization) -> None:
    revoked, unknown = make_key(acme, Scope.MANAGE), make_key(acme, Scope.MANAGE)
    client = _with_key(revoked.secret)
    client.delete(f"/api/v1/keys/{revoked.key.id}")
    with organization_scope(acme.id):
        ApiKey.objects.filter(id=unknown.key.id).delete()
    bodies = []
    for secret in (revoked.secret, unknown.secret):
        answer = _with_key(secret).get("/api/v1/keys")
        assert answer.status_code == 401
        bodies.append({**answer.json()["error"], "request_id": ""})
    assert bodies[0] == bodies[1]


def test_using_a_management_key_is_noted(acme: Organization) -> None:
    made = make_key(acme, Scope.MANAGE)
    shown = _with_key(made.secret).get(f"/api/v1/keys/{made.key.id}").json()
    assert shown["last_used_at"] is not None


def test_where_signup_is_open_an_address_must_be_verified(
    redis_client: redis.Redis, settings: Settings
) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    user = make_user("ann@example.com", password=PASSWORD)
    client, token = _csrf_client()
    refused = _sign_in(client, token, "ann@example.com", PASSWORD)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "email_not_verified")
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    assert _sign_in(client, token, "ann@example.com", PASSWORD).status_code == 200


def test_a_key_implies_its_organization(acme: Organization) -> None:
    client = _with_key(make_key(acme, Scope.MANAGE, Scope.INFERENCE).secret)
    assert [each["slug"] for each in client.get("/api/v1/organizations").json()] == ["acme"]
    shown = client.get("/api/v1/organizations/acme").json()
    assert (shown["plan"], shown["limits"]["concurrency"]) == ("starter", 100)


def test_a_secret_is_shown_once(owner: APIClient, acme: Organization) -> None:
    made = owner.post("/api/v1/keys", {"name": "ci", "scopes": ["manage"]})
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    secret = made.json()["secret"]
    assert _with_key(secret).get("/api/v1/keys").status_code == 200
    for path in (f"/api/v1/keys/{made.json()['id']}", "/api/v1/keys", "/api/v1/audit"):
        assert secret not in owner.get(path).text


def test_rotation_gives_a_second_secret(owner: APIClient, acme: Organization) -> None:
    old = make_key(acme, Scope.MANAGE)
    made = owner.post(f"/api/v1/keys/{old.key.id}/rotate", {"overlap_seconds": 0})
    assert made.status_code == 201
    assert _with_key(old.secret).get("/api/v1/keys").status_code == 401
    assert _with_key(made.json()["secret"]).get("/api/v1/keys").status_code == 200


# Input


@pytest.mark.parametrize(
    "name",
    ["organization", "organization_id", "role", "is_staff", "status", "quota", "id", "version"],
)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "/api/v1/projects", {"name": "x"}),
        ("post", "/api/v1/keys", {"name": "x", "scopes": ["inference"]}),
        ("patch", "/api/v1/organizations/acme", {"name": "x"}),
    ],
)
def test_fields_nobody_asked_for_are_refused(
    owner: APIClient, method: str, path: str, body: dict[str, Any], name: str
) -> None:
    """A25."""
    call: Callable[..., Any] = getattr(owner, method)
    answer = call(path, {**body, name: "owner"})
    assert answer.status_code == 400
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (
        "unknown_field",
        name,
    )
    with platform_scope():
        assert Organization.objects.get().name == "Acme"
        assert ApiKey.objects.count() == 0


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 422, "name"),
        ({"name": "x"}, 422, "scopes"),
        ({"name": "x", "scopes": []}, 422, "scopes"),
        ({"name": "x", "scopes": ["root"]}, 422, "scopes.0"),
        (
            {"name": "x", "scopes": ["inference"], "expires_at": "2001-01-01T00:00Z"},
            422,
            "expires_at",
        ),
        ({"name": "x\n{}", "scopes": ["inference"]}, 422, "name"),
        ({"name": "\x1b[31mred", "scopes": ["inference"]}, 422, "name"),
        ({"name": "x" * 81, "scopes": ["inference"]}, 422, "name"),
        (["not", "an", "object"], 422, None),
    ],
)
def test_bad_input_is_named(owner: APIClient, body: Any, status: int, param: str | None) -> None:
    answer = owner.post("/api/v1/keys", body)
    assert answer.status_code == status, answer.content
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["message"]


def test_broken_json_is_a_bad_request(owner: APIClient) -> None:
    answer = owner.generic("POST", "/api/v1/keys", "{", content_type="application/json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "parse_error")


def test_what_is_not_there_is_an_error_of_the_same_shape(owner: APIClient) -> None:
    for path in ("/api/v1/nothing", "/api/v1/keys/not-an-id"):
        answer = owner.get(path)
        assert answer.status_code == 404
        assert set(answer.json()["error"]) == {"code", "message", "param", "rule", "request_id"}
    assert owner.put("/api/v1/keys", {}).status_code == 405


def test_a_taken_short_name_is_a_conflict(owner: APIClient, acme: Organization) -> None:
    owner.post("/api/v1/projects", {"name": "Second"})
    answer = owner.post("/api/v1/projects", {"name": "Second"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "name_taken")


# Founding organizations


def test_operators_found_organizations(redis_client: redis.Redis) -> None:
    client = APIClient()
    client.force_login(User.objects.create_user("op@example.com", is_staff=True))
    made = client.post("/api/v1/organizations", {"name": "Initech"})
    assert (made.status_code, made.json()["slug"]) == (201, "initech")
    with platform_scope():
        assert Membership.objects.get(organization__slug="initech").role == Role.OWNER


def test_others_found_them_only_where_signup_is_open(settings: Settings) -> None:
    client = APIClient()
    client.force_login(make_user())
    assert client.post("/api/v1/organizations", {"name": "Initech"}).status_code == 403
    settings.TESSERA_SIGNUP = True
    assert client.post("/api/v1/organizations", {"name": "Initech"}).status_code == 201


def test_a_key_founds_nothing(acme: Organization) -> None:
    client = _with_key(make_key(acme, Scope.MANAGE).secret)
    assert client.post("/api/v1/organizations", {"name": "Initech"}).status_code == 403


# Lists


@pytest.mark.parametrize("path", ["projects", "members", "keys", "audit"])
def test_lists_cost_the_same_however_long_they_are(
    acme: Organization, path: str, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(15):
        make_key(acme)
        make_member(acme, Role.VIEWER)
    client = _with_key(make_key(acme, Scope.MANAGE).secret)
    if path == "members":
        client = APIClient()
        client.force_login(make_member(acme, Role.OWNER).user)
    # Who calls, the scope in and out, savepoints, and one query for the rows.
    with django_assert_max_num_queries(14):
        answer = client.get(f"/api/v1/{path}?limit=200")
    assert answer.status_code == 200
    assert path == "projects" or len(answer.json()["items"]) >= 15


def test_pages_follow_each_other_without_gap_or_repetition(acme: Organization) -> None:
    made = [str(make_key(acme).key.id) for _ in range(7)]
    client = _with_key(make_key(acme, Scope.MANAGE).secret)
    seen: list[str] = []
    following = "/api/v1/keys?limit=3"
    while following:
        page = client.get(following).json()
        seen += [each["id"] for each in page["items"]]
        following = page["next"]
    assert len(seen) == len(set(seen)) == 8
    assert set(made) < set(seen)
    assert seen == sorted(seen, reverse=True)


def test_the_audit_record_narrows_down(owner: APIClient, acme: Organization) -> None:
    key = make_key(acme).key
    make_key(acme)
    answer = owner.get(f"/api/v1/audit?verb=key.create&target={key.id}").json()
    assert [each["target_id"] for each in answer["items"]] == [str(key.id)]
    assert owner.get("/api/v1/audit?verb=nothing").json()["items"] == []


def test_plans_are_for_whoever_is_known(owner: APIClient) -> None:
    assert [each["code"] for each in owner.get("/api/v1/plans").json()] == ["scale", "starter"]
    assert APIClient().get("/api/v1/plans").status_code == 401
