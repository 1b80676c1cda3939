"""One organization with one key, made by the services that make them in the product.

Run as ``python -m bench.tenant`` in a migrated installation's environment; prints one JSON object.
A process of its own, so that what measures loads no Django.
"""

from __future__ import annotations

import json
import os

import django


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings.prod")
    django.setup()
    from tenants.access import Caller  # noqa: PLC0415 - models exist after setup
    from tenants.models import Scope, User  # noqa: PLC0415
    from tenants.services import key_create, organization_create  # noqa: PLC0415

    caller = Caller.system("bench")
    owner = User.objects.create_user("bench@example.com")
    organization = organization_create(caller, name="Bench", owner=owner)
    new = key_create(organization.id, caller=caller, name="bench", scopes=[Scope.INFERENCE])
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
