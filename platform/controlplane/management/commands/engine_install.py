"""``manage.py engine_install``: the engine's environment and the demo's base model."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.engine.base import demo_base
from controlplane.engine.environment import EngineUnavailable
from controlplane.engine.install import install_engine


class Command(BaseCommand):
    help = "Install the engine into its own environment and make the demo's base model."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--without-base", action="store_true", help="the engine only")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            self.stdout.write(f"Engine: {install_engine(self._say)}")
            if not options["without_base"]:
                base = demo_base(self._say)
                self.stdout.write(f"Base model: {base.folder}")
        except EngineUnavailable as error:
            raise CommandError(error.message) from error

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
