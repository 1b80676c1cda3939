"""Commands for people who need not know Django."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from kernel.errors import DomainError
from supervisor.errors import SupervisorError


class PlainCommand(BaseCommand):
    """What it refuses is a sentence on stderr and an exit status, without the name of a class."""

    requires_system_checks: list[str] = []

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except (CommandError, DomainError, SupervisorError) as error:
            if options.get("traceback"):
                raise
            self.stderr.write(str(error))
            sys.exit(error.returncode if isinstance(error, CommandError) else 1)

    def say(self, text: str) -> None:
        """At once, whoever reads it."""
        self.stdout.write(text)
        self.stdout.flush()
