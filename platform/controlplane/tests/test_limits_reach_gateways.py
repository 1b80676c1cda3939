"""From the service that sets a limit to the gateway that holds to it, and what operators see of it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.utils import timezone
from pytest_django import Settings

from controlplane.cell import cell_now
from controlplane.gateways import gateways_now
from controlplane.limits import limits_now
from serving.gateway.tests import raw
from serving.gateway.tests.stack import Stack, Tenant, until
from tenants.models import Organization
from tenants.scope import platform_scope
from tenants.services import NewKey, key_limits_set
from tenants.tests.factories import SYSTEM, make_key, make_organization

LONGEST_SECONDS = 5.0  # SECURITY.md: every change of limits
GRACE_SECONDS = 0.5  # a machine that does other things as well

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def acme() -> Organization:
    return make_organization("acme")


@pytest.fixture
def key(gateway: Stack, acme: Organization, settings: Settings) -> NewKey:
    """A key whose organization has a model that is served."""
    made = make_key(acme)
    project = str(made.key.project_id)
    gateway.tenants.append(Tenant(str(acme.id), project, "", "", ("support",)))
    gateway.engine("--token-ms", "30", "--tokens", "100", slots=1)
    gateway.serve(TESSERA_KEY_PEPPER=settings.TESSERA_KEY_PEPPER)
    return made


def ask(gateway: Stack, key: NewKey, *, tokens: int = 1) -> raw.Answer:
    body = {"model": "support", "prompt": "x", "max_tokens": tokens}
    return raw.ask(gateway.port, raw.request("/v1/completions", body, key=key.secret))


def until_status(gateway: Stack, key: NewKey, status: int) -> float:
    """Seconds until a request is answered so."""
    began = time.monotonic()
    while (found := ask(gateway, key).status) != status:
        assert found in {200, 429}
        assert time.monotonic() - began < 30
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_limit_holds_within_five_seconds_and_is_shown_as_used(
    gateway: Stack, acme: Organization, key: NewKey
) -> None:
    assert ask(gateway, key).status == 200
    key_limits_set(acme.id, key.key.id, caller=SYSTEM, limits={"tokens_per_minute": 1})
    assert until_status(gateway, key, 429) <= LONGEST_SECONDS + GRACE_SECONDS
    (shown,) = limits_now(acme.id, at=key.key.created_at).keys
    assert shown.tokens is not None
    assert (shown.tokens.limit, shown.tokens.remaining) == (1, 0)
    key_limits_set(acme.id, key.key.id, caller=SYSTEM, limits={"tokens_per_minute": None})
    assert until_status(gateway, key, 200) <= LONGEST_SECONDS + GRACE_SECONDS


def test_operators_see_what_runs_waits_and_is_held(
    gateway: Stack, acme: Organization, key: NewKey
) -> None:
    """The page reads plain keys: this holds it to what admission writes."""
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(ask, gateway, key, tokens=100) for _ in range(3)]

        def seen() -> bool:
            with platform_scope():
                pools = cell_now().pools
            return bool(pools) and (pools[0].taken, pools[0].waiting) == (1, 2)

        until(seen, seconds=20, what="one call runs and two wait")
        with platform_scope():
            now = cell_now()
        assert [each.result().status for each in asked] == [200, 200, 200]
    (pool,) = now.pools
    waiting = {tier.tier: dict(tier.tenants) for tier in pool.tiers if tier.calls}
    assert waiting == {"standard": {str(acme.id): 2}}
    assert now.epoch is not None
    assert 0 <= now.at - now.epoch.since < 600
    shown = {each.name: each.gauge("redis_up") for each in gateways_now(at=timezone.now())}
    assert shown == {"node/0": 1}
