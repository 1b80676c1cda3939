"""``manage.py status``: the parts, their health and memory. Exit status 0: all is well."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError

from controlplane.embedded.home import Home
from controlplane.embedded.status import rows, table
from controlplane.management.plain import PlainCommand

NOT_RUNNING = 3
NOT_WELL = 1


class Command(PlainCommand):
    help = "Show the parts that run on this machine."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object, for programs")

    def handle(self, *_args: Any, **options: Any) -> None:
        home = Home.named_by(os.environ)
        try:
            found = rows(home)
        except OSError:
            raise CommandError(
                f"Nothing is running in {home.folder}; `make up` starts it.", returncode=NOT_RUNNING
            ) from None
        if options["json"]:
            self.stdout.write(json.dumps({"parts": [asdict(row) for row in found]}))
        else:
            self.stdout.write(table(found))
        if not all(row.is_well for row in found):
            sys.exit(NOT_WELL)
