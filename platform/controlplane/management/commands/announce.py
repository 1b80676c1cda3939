"""``manage.py announce``: what the person who started the stack is told. Run by ``up``."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import call_command, get_commands
from django.core.management.base import BaseCommand

from controlplane.embedded.announcement import Demo, announcement
from controlplane.embedded.home import Home
from kernel.errors import DomainError
from serving.models import Deployment
from tenants.scope import platform_scope

MODELS_SECONDS = 600.0
POLL_SECONDS = 1.0


class Command(BaseCommand):
    help = "Print where the running stack is and who may sign in."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seed", action="store_true", help="make the demo where it is missing")
        parser.add_argument(
            "--when-models-answer", action="store_true", help="wait for deployments, say so, end"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["when_models_answer"]:
            self._tell_when_models_answer()
            return
        if options["seed"]:
            self._seed()
        home = Home.named_by(os.environ)
        self.stdout.write(
            announcement(
                portal_url=settings.TESSERA_PORTAL_URL,
                gateway_url=settings.TESSERA_GATEWAY_URL,
                demo=Demo.load(home.demo),
            )
        )

    def _seed(self) -> None:
        """A demo that cannot be made is no reason to say nothing about the rest."""
        if "demo_seed" not in get_commands():
            self.stdout.write("This version brings no demo organizations.")
            return
        try:
            call_command("demo_seed", stdout=self.stdout)
        except DomainError as error:
            self.stdout.write(f"The demo organizations could not be made: {error.message}")

    def _tell_when_models_answer(self) -> None:
        begun = time.monotonic()
        while time.monotonic() < begun + MODELS_SECONDS:
            waiting, ready = _deployments()
            if not waiting:
                seconds = time.monotonic() - begun
                if ready:
                    self.stdout.write(f"{ready} models answer, {seconds:.0f} s after the portal.")
                return
            time.sleep(POLL_SECONDS)
        self.stdout.write("Not every model answers yet; the portal and `make status` say why.")


def _deployments() -> tuple[int, int]:
    """How many are on their way, and how many are ready."""
    with platform_scope():
        wanted = Deployment.objects.filter(wanted="running")
        return wanted.exclude(status__in=("ready", "failed")).count(), wanted.filter(
            status="ready"
        ).count()
