from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from billing.tests.factories import make_event
from controlplane.key_use import key_use_note
from tenants.models import ApiKey
from tenants.scope import platform_scope
from tenants.tests.factories import make_key, make_organization

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_last_of_a_keys_usage_shows_up_at_the_key() -> None:
    organization = make_organization()
    used, unused = make_key(organization).key, make_key(organization).key
    last = timezone.now() - timedelta(minutes=2)
    for occurred_at in (last - timedelta(minutes=1), last):
        make_event(organization_id=organization.id, key_id=used.id, occurred_at=occurred_at)
    for _ in range(2):
        key_use_note()
        with platform_scope():
            shown = dict(ApiKey.objects.values_list("id", "last_used_at"))
        assert shown == {used.id: last, unused.id: None}
