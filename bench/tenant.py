"""One organization with one key, made by the services that make them in the product.

Every limit is set, and none is met: a benchmark pays for what limits cost, it is not held by them.

Run as ``python -m bench.tenant`` in a migrated installation's environment; prints one JSON object.
A process of its own, so that what measures loads no Django.
"""

from __future__ import annotations

import json
import os

import django

LIMITS = {
    "requests_per_minute": 10_000_000,
    "tokens_per_minute": 1_000_000_000,
    "concurrency": 100_000,
}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings.prod")
    django.setup()
    from tenants.access import Caller  # noqa: PLC0415 - models exist after setup
    from tenants.models import Scope, User  # noqa: PLC0415
    from tenants.services import (  # noqa: PLC0415
        key_create,
        organization_create,
        quota_set,
    )

    caller = Caller.system("bench")
    owner = User.objects.create_user("bench@example.com")
    organization = organization_create(caller, name="Bench", owner=owner)
    new = key_create(organization.id, caller=caller, name="bench", scopes=[Scope.INFERENCE])
    quota_set(organization.id, caller=caller, limits=LIMITS)
    print(
        json.dumps(
            {
                "organization": str(organization.id),
                "project": str(new.key.project_id),
                "key": new.secret,
            }
        )
    )


if __name__ == "__main__":
    main()
