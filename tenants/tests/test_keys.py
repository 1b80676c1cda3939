from __future__ import annotations

import pytest

from tenants import selectors
from tenants.models import Scope
from tenants.tests.factories import make_key, make_organization

pytestmark = pytest.mark.django_db


def test_a_new_key_finds_its_principal() -> None:
    organization = make_organization()
    made = make_key(organization, Scope.INFERENCE)
    principal = selectors.principal_by_key(made.secret)
    assert principal is not None
    assert principal.organization_id == organization.id
    assert principal.active
