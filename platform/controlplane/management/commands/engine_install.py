"""``manage.py engine_install``: the engine's environment and the demo's base model."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from controlplane.engine.base import demo_base
from controlplane.engine.install import install_engine
from controlplane.management.plain import PlainCommand


class Command(PlainCommand):
    help = "Install the engine into its own environment and make the demo's base model."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--without-base", action="store_true", help="the engine only")

    def handle(self, *_args: Any, **options: Any) -> None:
        self.say(f"Engine: {install_engine(self.say)}")
        if not options["without_base"]:
            self.say(f"Base model: {demo_base(self.say).folder}")
