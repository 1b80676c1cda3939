"""API keys: made, rotated, revoked. A secret is shown once and never kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from kernel.errors import Invalid
from kernel.keys import key_mac, key_new
from tenants import selectors
from tenants.access import ActorType, Caller, Permission
from tenants.errors import KeyNotActive, ScopeNotGrantable
from tenants.models import ApiKey, KeyEnvironment, Project, Scope
from tenants.scope import organization_scope, platform_scope
from tenants.services.audit import audit_of
from tenants.services.rules import name_checked

_KEYS_USED = """
    UPDATE tenants_apikey SET last_used_at = used.at
    FROM unnest(%s::uuid[], %s::timestamptz[]) AS used (id, at)
    WHERE tenants_apikey.id = used.id
      AND (last_used_at IS NULL OR last_used_at < used.at - interval '1 minute')
"""
ROTATION_OVERLAP = timedelta(hours=24)
ROTATION_OVERLAP_LONGEST = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. ``secret`` exists nowhere else and cannot be shown again."""

    key: ApiKey
    secret: str

    def __repr__(self) -> str:
        return f"NewKey({self.key.id})"


def key_create(  # noqa: PLR0913 - what a key consists of
    organization_id: UUID,
    *,
    caller: Caller,
    name: str,
    scopes: list[Scope],
    project: str | UUID = "",
    environment: KeyEnvironment = KeyEnvironment.LIVE,
    models: list[str] | None = None,
    expires_at: datetime | None = None,
) -> NewKey:
    """Make a key. Its secret is in the answer and nowhere else."""
    caller.require(Permission.KEY_MANAGE, organization_id=organization_id)
    _require_mintable(caller, scopes, models or [])
    if not scopes:
        raise Invalid("A key needs at least one scope.", param="scopes", rule="scopes_not_empty")
    if expires_at is not None and expires_at <= timezone.now():
        raise Invalid("The expiry lies in the past.", param="expires_at", rule="expiry_in_future")
    with organization_scope(organization_id):
        key = ApiKey(
            organization_id=organization_id,
            project=_project(organization_id, project),
            name=name_checked(name),
            environment=environment,
            scopes=sorted(set(scopes)),
            models=sorted(set(models or [])),
            expires_at=expires_at,
        )
        return _key_save(key, caller, "key.create")


def key_revoke(organization_id: UUID, key_id: UUID, *, caller: Caller) -> ApiKey:
    """The key stops working; doing it twice changes nothing the second time."""
    caller.require(Permission.KEY_MANAGE, organization_id=organization_id)
    with organization_scope(organization_id):
        key = _key_for_change(organization_id, key_id)
        _require_mintable(caller, key.scopes, key.models)
        if key.revoked_at is None:
            _key_end(key, caller, timezone.now())
    return key


def key_rotate(
    organization_id: UUID,
    key_id: UUID,
    *,
    caller: Caller,
    overlap: timedelta = ROTATION_OVERLAP,
) -> NewKey:
    """A new key in place of an old one, which goes on working for ``overlap``; none means it ends
    at once.
    """
    caller.require(Permission.KEY_MANAGE, organization_id=organization_id)
    if not timedelta(0) <= overlap <= ROTATION_OVERLAP_LONGEST:
        raise Invalid(
            "The old key can go on for at most 7 days.",
            param="overlap_seconds",
            rule="overlap_at_most_7_days",
        )
    now = timezone.now()
    with organization_scope(organization_id):
        old = _key_for_change(organization_id, key_id)
        _require_mintable(caller, old.scopes, old.models)
        if not old.is_active(now):
            raise KeyNotActive
        new = ApiKey(
            organization_id=organization_id,
            project_id=old.project_id,
            name=old.name,
            environment=old.environment,
            scopes=old.scopes,
            models=old.models,
            expires_at=old.expires_at and now + (old.expires_at - old.created_at),
            requests_per_minute=old.requests_per_minute,
            tokens_per_minute=old.tokens_per_minute,
            concurrency=old.concurrency,
            budget_nano=old.budget_nano,
        )
        made = _key_save(new, caller, "key.rotate", {"replaces": str(old.id)})
        if overlap:
            _key_shorten(old, now + overlap)
        else:
            _key_end(old, caller, now)
    return made


def keys_used(last_used: Mapping[UUID, datetime]) -> None:
    """Note when keys were last used, to the minute; an older instant changes nothing."""
    if not last_used:
        return
    with platform_scope(), connection.cursor() as cursor:
        cursor.execute(_KEYS_USED, [list(last_used), list(last_used.values())])


def _project(organization_id: UUID, named: str | UUID) -> Project:
    if named:
        return selectors.project_get(organization_id, named)
    return selectors.project_default(organization_id)


def _key_save(
    key: ApiKey, caller: Caller, verb: str, detail: Mapping[str, Any] | None = None
) -> NewKey:
    secret = key_new("test" if key.environment == KeyEnvironment.TEST else "live")
    key.mac = key_mac(bytes.fromhex(settings.TESSERA_KEY_PEPPER), secret)
    key.last4 = secret[-4:]
    if caller.actor_type in {ActorType.USER, ActorType.OPERATOR}:
        key.created_by_id = UUID(caller.actor_id)
    key.save(force_insert=True)
    shown = {"name": key.name, "scopes": key.scopes, "models": key.models, **(detail or {})}
    audit_of(caller, verb, key, shown)
    return NewKey(key, secret)


def _key_shorten(key: ApiKey, latest: datetime) -> None:
    key.expires_at = min(key.expires_at or latest, latest)
    key.version += 1
    key.save(update_fields=["expires_at", "version"])


def _key_end(key: ApiKey, caller: Caller, now: datetime) -> None:
    key.revoked_at = now
    key.version += 1
    key.save(update_fields=["revoked_at", "version"])
    audit_of(caller, "key.revoke", key, {"name": key.name})
    push_revoked(key)


def push_revoked(key: ApiKey) -> None:
    """Tell the gateways once it is committed. If that fails they learn it within 5 s."""

    def push() -> None:
        import_string(settings.TESSERA_KEY_REVOKED_RECEIVER)(str(key.id))

    transaction.on_commit(push, robust=True)


def _key_for_change(organization_id: UUID, key_id: UUID) -> ApiKey:
    selectors.key_get(organization_id, key_id)
    return ApiKey.objects.select_for_update().get(organization_id=organization_id, id=key_id)


def _require_mintable(caller: Caller, scopes: list[Any], models: list[str]) -> None:
    if beyond := sorted(set(scopes) - caller.scopes):
        raise ScopeNotGrantable(
            f"You may not make or change a key with the scope {beyond[0]}; ask an owner or admin.",
            param="scopes",
        )
    if caller.models and not (models and caller.models.issuperset(models)):
        raise ScopeNotGrantable(
            "Your own key is limited to some models; name models out of these.", param="models"
        )
