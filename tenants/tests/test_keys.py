from __future__ import annotations

import logging
from datetime import datetime, timedelta

import pytest
import redis
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, DjangoCaptureOnCommitCallbacks, Settings

from kernel.errors import Invalid, NotFound
from kernel.keys import key_mac
from tenants import selectors
from tenants.access import Caller
from tenants.errors import KeyNotActive, ScopeNotGrantable
from tenants.models import ApiKey, AuditEvent, Organization, Role, Scope
from tenants.scope import organization_scope, platform_scope
from tenants.services import (
    NewKey,
    key_create,
    key_revoke,
    key_rotate,
    keys_used,
    organization_resume,
    organization_suspend,
)
from tenants.tests.factories import SYSTEM, caller_of, make_key, make_organization

pytestmark = pytest.mark.django_db


def _active(secret: str) -> bool:
    principal = selectors.principal_by_key(secret)
    assert principal is not None
    return principal.active


def _version(secret: str) -> int:
    principal = selectors.principal_by_key(secret)
    assert principal is not None
    return principal.version


def test_only_the_mac_of_a_key_is_kept(settings: Settings) -> None:
    made = make_key(make_organization())
    with platform_scope():
        row = ApiKey.objects.values().get(id=made.key.id)
        record = str(list(AuditEvent.objects.values()))
    assert made.secret not in str(row) + record + repr(made)
    pepper = bytes.fromhex(settings.TESSERA_KEY_PEPPER)
    assert bytes(row["mac"]) == key_mac(pepper, made.secret)
    assert row["last4"] == made.secret[-4:]


def test_nonsense_costs_no_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        for text in ("", "' OR '1'='1", "x" * 1_000_000, "tsr_live_\0", "tsr_live_ü"):
            assert selectors.principal_by_key(text) is None


def test_revoked_is_inactive_and_of_a_higher_version() -> None:
    organization = make_organization()
    made = make_key(organization)
    before = _version(made.secret)
    key_revoke(organization.id, made.key.id, caller=SYSTEM)
    assert not _active(made.secret)
    assert _version(made.secret) > before


def test_revoking_twice_changes_nothing_the_second_time() -> None:
    organization = make_organization()
    made = make_key(organization)
    first = key_revoke(organization.id, made.key.id, caller=SYSTEM)
    second = key_revoke(organization.id, made.key.id, caller=SYSTEM)
    assert first.revoked_at == second.revoked_at
    with platform_scope():
        assert AuditEvent.objects.filter(verb="key.revoke").count() == 1


def test_a_revocation_reaches_the_gateways_stream(
    redis_client: redis.Redis,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
    settings: Settings,
) -> None:
    organization = make_organization()
    made = make_key(organization)
    with django_capture_on_commit_callbacks(execute=True):
        key_revoke(organization.id, made.key.id, caller=SYSTEM)
    entries = redis_client.xrange(f"tessera:push:{settings.TESSERA_CELL}") or []
    assert [entry for _, entry in entries] == [
        {b"kind": b"revoked", b"key_id": str(made.key.id).encode()}
    ]


def test_a_revocation_holds_though_nobody_can_be_told(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks, settings: Settings
) -> None:
    settings.TESSERA_KEY_REVOKED_RECEIVER = "tenants.tests.test_keys.unreachable"
    organization = make_organization()
    made = make_key(organization)
    with django_capture_on_commit_callbacks(execute=True):
        key_revoke(organization.id, made.key.id, caller=SYSTEM)
    assert not _active(made.secret)


def unreachable(key_id: str) -> None:
    raise redis.ConnectionError(key_id)


def test_suspending_an_organization_ends_its_keys_until_it_resumes(
    redis_client: redis.Redis,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    organization = make_organization()
    made = [make_key(organization), make_key(organization)]
    with django_capture_on_commit_callbacks(execute=True):
        organization_suspend(organization.id, caller=SYSTEM)
    versions = [_version(each.secret) for each in made]
    assert not any(_active(each.secret) for each in made)
    assert redis_client.xlen("tessera:push:local") == 2
    organization_resume(organization.id, caller=SYSTEM)
    assert all(_active(each.secret) for each in made)
    assert [_version(each.secret) for each in made] == [version + 1 for version in versions]


def test_a_key_expires_by_the_databases_clock() -> None:
    organization = make_organization()
    made = make_key(organization)
    with organization_scope(organization.id):
        ApiKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert not _active(made.secret)


def test_a_rotated_key_works_on_for_the_overlap() -> None:
    organization = make_organization()
    old = make_key(organization, Scope.INFERENCE, Scope.USAGE_READ, models=["support"])
    before = _version(old.secret)
    new = key_rotate(organization.id, old.key.id, caller=SYSTEM, overlap=timedelta(hours=1))
    assert _active(old.secret)
    assert _active(new.secret)
    assert _version(old.secret) > before
    assert (new.key.scopes, new.key.models) == (old.key.scopes, old.key.models)
    with organization_scope(organization.id):
        expires = ApiKey.objects.get(id=old.key.id).expires_at
    assert expires is not None
    assert timedelta(minutes=59) < expires - timezone.now() <= timedelta(hours=1)


def test_rotation_without_overlap_ends_the_old_key_at_once() -> None:
    organization = make_organization()
    old = make_key(organization)
    new = key_rotate(organization.id, old.key.id, caller=SYSTEM, overlap=timedelta(0))
    assert not _active(old.secret)
    assert _active(new.secret)


def test_rotation_never_lengthens_a_life() -> None:
    organization = make_organization()
    soon = timezone.now() + timedelta(minutes=5)
    old = key_create(
        organization.id, caller=SYSTEM, name="short", scopes=[Scope.INFERENCE], expires_at=soon
    )
    key_rotate(organization.id, old.key.id, caller=SYSTEM)
    with organization_scope(organization.id):
        assert ApiKey.objects.get(id=old.key.id).expires_at == soon


def test_a_revoked_key_cannot_be_rotated() -> None:
    organization = make_organization()
    made = make_key(organization)
    key_revoke(organization.id, made.key.id, caller=SYSTEM)
    with pytest.raises(KeyNotActive):
        key_rotate(organization.id, made.key.id, caller=SYSTEM)


@pytest.mark.parametrize("overlap", [timedelta(days=8), timedelta(seconds=-1)])
def test_an_overlap_has_bounds(overlap: timedelta) -> None:
    organization = make_organization()
    made = make_key(organization)
    with pytest.raises(Invalid, match="7 days"):
        key_rotate(organization.id, made.key.id, caller=SYSTEM, overlap=overlap)


@pytest.mark.parametrize(
    ("role", "scopes", "allowed"),
    [
        (Role.OWNER, [Scope.MANAGE], True),
        (Role.ADMIN, [Scope.MANAGE], True),
        (Role.DEVELOPER, [Scope.INFERENCE, Scope.USAGE_READ], True),
        (Role.DEVELOPER, [Scope.MANAGE], False),
        (Role.DEVELOPER, [Scope.INFERENCE, Scope.MANAGE], False),
    ],
)
def test_nobody_mints_more_than_they_have(role: Role, scopes: list[Scope], allowed: bool) -> None:
    """A26."""
    organization = make_organization()
    caller = caller_of(organization, role)
    if allowed:
        key_create(organization.id, caller=caller, name="key", scopes=scopes)
        return
    with pytest.raises(ScopeNotGrantable):
        key_create(organization.id, caller=caller, name="key", scopes=scopes)


def test_a_developer_cannot_take_over_a_management_key_by_rotating_it() -> None:
    organization = make_organization()
    made = make_key(organization, Scope.MANAGE)
    with pytest.raises(ScopeNotGrantable):
        key_rotate(organization.id, made.key.id, caller=caller_of(organization, Role.DEVELOPER))


def _key_caller(organization: Organization, *models: str) -> Caller:
    made = make_key(organization, Scope.MANAGE, Scope.INFERENCE, models=list(models))
    return Caller.key(
        str(made.key.id),
        organization_id=organization.id,
        project_id=made.key.project_id,
        scopes=[Scope.MANAGE, Scope.INFERENCE],
        models=models,
        label="key",
        address=None,
    )


@pytest.mark.parametrize(
    ("models", "allowed"), [(["a"], True), (["a", "b"], True), ([], False), (["a", "c"], False)]
)
def test_a_limited_key_cannot_make_one_with_other_models(models: list[str], allowed: bool) -> None:
    """A26: no wildcard out of a list."""
    organization = make_organization()
    caller = _key_caller(organization, "a", "b")
    scopes = [Scope.INFERENCE]
    if allowed:
        key_create(organization.id, caller=caller, name="key", scopes=scopes, models=models)
        return
    with pytest.raises(ScopeNotGrantable):
        key_create(organization.id, caller=caller, name="key", scopes=scopes, models=models)


def test_a_caller_of_one_organization_reaches_no_other() -> None:
    acme, globex = make_organization(), make_organization()
    foreign = make_key(globex).key
    caller = caller_of(acme, Role.OWNER)
    with pytest.raises(NotFound):
        key_revoke(globex.id, foreign.id, caller=caller)
    with pytest.raises(NotFound):
        key_revoke(acme.id, foreign.id, caller=caller)
    with pytest.raises(NotFound):
        key_create(acme.id, caller=caller, name="x", scopes=[Scope.INFERENCE], project=globex.id)


def test_a_key_needs_a_scope_and_a_future() -> None:
    organization = make_organization()
    with pytest.raises(Invalid, match="scope"):
        key_create(organization.id, caller=SYSTEM, name="x", scopes=[])
    past = timezone.now() - timedelta(seconds=1)
    with pytest.raises(Invalid, match="past"):
        key_create(
            organization.id, caller=SYSTEM, name="x", scopes=[Scope.INFERENCE], expires_at=past
        )


def _last_used(made: NewKey) -> datetime | None:
    with platform_scope():
        return ApiKey.objects.get(id=made.key.id).last_used_at


def test_the_last_use_is_noted_once_a_minute_and_never_goes_back() -> None:
    made, other = make_key(make_organization()), make_key(make_organization())
    now = timezone.now()
    keys_used({made.key.id: now})
    for later in (timedelta(seconds=30), -timedelta(hours=1)):
        keys_used({made.key.id: now + later})
        assert _last_used(made) == now
    keys_used({made.key.id: now + timedelta(minutes=2)})
    assert _last_used(made) == now + timedelta(minutes=2)
    assert _last_used(other) is None


def test_no_log_line_holds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="tenants"):
        organization = make_organization()
        made = make_key(organization)
        key_revoke(organization.id, made.key.id, caller=SYSTEM)
    assert made.secret not in caplog.text
