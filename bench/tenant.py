"""An organization with one key for each tier, made by the services that make them in the product.

Every limit is set, and none is met: a benchmark pays for what limits cost, it is not held by them.

Run as ``python -m bench.tenant <tier>...`` in a migrated installation's environment; prints JSON.
A process of its own, so that what measures loads no Django.
"""

from __future__ import annotations

import json
import os
import sys

import django

LIMITS = {
    "requests_per_minute": 10_000_000,
    "tokens_per_minute": 1_000_000_000,
    "concurrency": 100_000,
}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings.prod")
    django.setup()
    print(json.dumps([make(tier) for tier in sys.argv[1:]]))


def make(tier: str) -> dict[str, str]:
    from tenants.access import Caller  # noqa: PLC0415 - models exist after setup
    from tenants.models import Plan, Scope, User  # noqa: PLC0415
    from tenants.services import (  # noqa: PLC0415
        key_create,
        organization_create,
        quota_set,
    )

    caller = Caller.system("bench")
    owner = User.objects.create_user(f"{tier}@example.com")
    Plan.objects.create(code=f"bench-{tier}", name=tier, tier=tier, storage_bytes=0, **LIMITS)
    organization = organization_create(
        caller, name=f"Bench {tier}", owner=owner, plan=f"bench-{tier}"
    )
    new = key_create(organization.id, caller=caller, name="bench", scopes=[Scope.INFERENCE])
    quota_set(organization.id, caller=caller, limits=LIMITS)
    return {
        "organization": str(organization.id),
        "project": str(new.key.project_id),
        "key": new.secret,
    }


if __name__ == "__main__":
    main()
