#!/usr/bin/env python
"""Tessera's command line: ``manage.py help`` lists what there is."""

import os
import sys

from controlplane.embedded.home import fill_environment
from kernel.errors import DomainError
from supervisor.errors import SupervisorError


def main() -> None:
    try:
        fill_environment(sys.argv[1] if len(sys.argv) > 1 else "")
    except (DomainError, SupervisorError) as error:
        sys.exit(str(error))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings.prod")
    from django.core.exceptions import ImproperlyConfigured  # noqa: PLC0415
    from django.core.management import execute_from_command_line  # noqa: PLC0415

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
