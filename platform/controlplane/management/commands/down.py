"""``manage.py down``: stop what ``up`` started."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.embedded.home import Home
from controlplane.embedded.waiting import NotStopped, stop


class Command(BaseCommand):
    help = "Stop everything that `up` started; data is kept."
    requires_system_checks: list[str] = []

    def handle(self, *_args: Any, **_options: Any) -> None:
        try:
            was_running = stop(Home.named_by(os.environ))
        except NotStopped as error:
            raise CommandError(error.message) from None
        self.stdout.write("Stopped." if was_running else "Nothing is running.")
