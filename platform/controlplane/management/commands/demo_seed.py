"""``manage.py demo_seed``: the demo's organizations, logins, keys and deployments."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import BaseCommand

from controlplane.demo import demo_seed
from controlplane.embedded.home import Home
from controlplane.engine.base import DemoBase, demo_base
from controlplane.engine.environment import EngineUnavailable


class Command(BaseCommand):
    help = "Make the demo organizations, or what is missing of them."
    requires_system_checks: list[str] = []

    def handle(self, *_args: Any, **_options: Any) -> None:
        demo_seed(Home.named_by(os.environ).demo, base=self._base(), say=self.stdout.write)

    def _base(self) -> DemoBase | None:
        """Without an engine there is nothing to serve; organizations and logins are made anyway."""
        try:
            return demo_base(self.stdout.write)
        except EngineUnavailable as error:
            self.stdout.write(error.message)
            return None
