"""``manage.py demo``: the walk of two new customers, against a running stack or one it starts."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from typing import Any

import httpx2
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from controlplane.demo import base_register
from controlplane.embedded.home import PROJECT, Home
from controlplane.engine.base import DEMO, demo_base
from kernel.errors import DomainError
from supervisor.leftovers import running_supervisor
from tenants.access import Caller
from tenants.models import User
from tenants.services import user_save

MANAGE = str(PROJECT / "manage.py")


class Command(BaseCommand):
    help = "Found two organizations over REST, deploy an adapter each, compare their answers."
    requires_system_checks: list[str] = []

    def handle(self, *_args: Any, **_options: Any) -> None:
        home = Home.named_by(os.environ)
        started_at = time.time()
        if running_supervisor(home.run) is not None:
            code = self._walk(started_at)
        else:
            code = self._in_stack_of_its_own()
        if code:
            sys.exit(code)

    def _in_stack_of_its_own(self) -> int:
        """Another process for the walk: this one's settings know nothing of the new stack."""
        manage = (sys.executable, MANAGE)
        started_at = time.time()
        try:
            starting = subprocess.Popen([*manage, "up", "--detach", "--empty"])
            while not _doors_answer() and starting.poll() is None:
                time.sleep(0.1)
            seconds = time.time() - started_at
            if starting.wait():
                raise CommandError("The stack could not be started; the lines above say why.")
            again = {
                **os.environ,
                "TESSERA_DEMO_STARTED_AT": str(started_at),
                "TESSERA_DEMO_PORTAL_SECONDS": f"{seconds:.1f}",
            }
            return subprocess.run([*manage, "demo"], check=False, env=again).returncode
        finally:
            # The walk's last line is its result, for scripts; nothing is printed after it.
            subprocess.run([*manage, "down"], check=False, stdout=subprocess.DEVNULL)

    def _walk(self, started_at: float) -> int:
        try:
            base_register(demo_base(self.stdout.write))
        except DomainError as error:
            raise CommandError(error.message) from None
        email, password = _guide()
        environment = {
            **os.environ,
            "TESSERA_PORTAL_URL": settings.TESSERA_PORTAL_URL,
            "TESSERA_GATEWAY_URL": settings.TESSERA_GATEWAY_URL,
            "TESSERA_DEMO_EMAIL": email,
            "TESSERA_DEMO_PASSWORD": password,
        }
        environment.setdefault("TESSERA_DEMO_STARTED_AT", str(started_at))
        walk = [sys.executable, str(DEMO / "walkthrough.py")]
        return subprocess.run(walk, check=False, env=environment).returncode


def _doors_answer() -> bool:
    """Whether portal and gateway answer: the gateway asks for a key, which is an answer."""
    try:
        portal = httpx2.get(f"{settings.TESSERA_PORTAL_URL}/readyz", timeout=2)
        gateway = httpx2.get(f"{settings.TESSERA_GATEWAY_URL}/v1/models", timeout=2)
    except httpx2.TransportError:
        return False
    return (portal.status_code, gateway.status_code) == (200, 401)


def _guide() -> tuple[str, str]:
    """Somebody who may found organizations, for this walk only."""
    password = secrets.token_urlsafe(24)
    user = User(email=f"demo-{secrets.token_hex(4)}@example.com", is_staff=True)
    user.set_password(password)
    user_save(user, caller=Caller.system("demo"))
    return user.email, password
