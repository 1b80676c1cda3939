"""``manage.py announce``: what the person who started the stack is told. Run by ``up``."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from controlplane.embedded.announcement import Demo, Models, announcement
from controlplane.embedded.home import Home
from controlplane.engine.environment import engine_python
from controlplane.management.plain import PlainCommand
from controlplane.readiness import Readiness, readiness
from kernel.errors import DomainError

LOADING_SECONDS = 300.0
POLL_SECONDS = 0.5
NOT_INSTALLED = (
    "the engine is not installed here; the lines above say why. `make up SIMULATOR=1` starts a "
    "stand-in for it."
)
NOT_DEPLOYED = "the demo's models are not deployed; the lines above say why."
LOADING = "The models are being loaded, which takes half a minute or so."


class Command(PlainCommand):
    help = "Print where the running stack is and who may sign in."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--seed", action="store_true", help="make the demo where it is missing, and wait for it"
        )
        parser.add_argument("--detached", action="store_true", help="the terminal is elsewhere")

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["seed"]:
            self._seed()
        demo = Demo.load(Home.named_by(os.environ).demo)
        self.say(
            announcement(
                portal_url=settings.TESSERA_PORTAL_URL,
                gateway_url=settings.TESSERA_GATEWAY_URL,
                demo=demo,
                models=self._models(demo, patient=options["seed"]) if demo else Models(),
                detached=options["detached"],
            )
        )

    def _seed(self) -> None:
        """A demo that cannot be made is no reason to say nothing about the rest."""
        try:
            call_command("demo_seed", stdout=self.stdout)
        except DomainError as error:
            self.say(f"The demo organizations could not be made: {error.message}")

    def _models(self, demo: Demo, *, patient: bool) -> Models:
        if not settings.TESSERA_SIMULATOR and engine_python() is None:
            return Models(trouble=NOT_INSTALLED)
        found = self._awaited(demo) if patient else readiness(demo, since=timezone.now())
        return Models(
            deployed=found.deployed,
            trouble=found.trouble if found.deployed else NOT_DEPLOYED,
            simulated=settings.TESSERA_SIMULATOR,
        )

    def _awaited(self, demo: Demo) -> Readiness:
        begun, deadline = timezone.now(), time.monotonic() + LOADING_SECONDS
        found = readiness(demo, since=begun)
        if not found.is_settled:
            self.say(f"The portal answers at {settings.TESSERA_PORTAL_URL}. {LOADING}")
        while not found.is_settled and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            found = readiness(demo, since=begun)
        return found
