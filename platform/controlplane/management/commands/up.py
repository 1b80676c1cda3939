"""``manage.py up``: the whole product on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from controlplane.embedded.environment import Ports
from controlplane.embedded.home import Home
from controlplane.embedded.preflight import provide_engine, require_ports, require_space
from controlplane.embedded.starting import Prepared, prepare
from controlplane.embedded.waiting import NotStarted, stop, wait_until_announced
from controlplane.management.plain import PlainCommand
from supervisor.errors import StackRunning
from supervisor.leftovers import running_supervisor


class Command(PlainCommand):
    help = "Start everything on this machine, and keep it running until Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--detach", action="store_true", help="go on in the background")
        parser.add_argument("--empty", action="store_true", help="without demo organizations")
        parser.add_argument(
            "--simulator", action="store_true", help="a stand-in instead of the engine"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        home, detach = Home.named_by(os.environ), options["detach"]
        _require_none_running(home)
        require_space(home.folder)
        require_ports(Ports.named_by(os.environ))
        provide_engine(self.say, simulator=options["simulator"])
        self.say(f"Starting in {home.folder}")
        prepared = prepare(
            home,
            os.environ,
            demo=not options["empty"],
            detached=detach,
            simulator=options["simulator"],
        )
        if detach:
            self._follow(home, prepared)
        else:
            _become_supervisor(prepared)

    def _follow(self, home: Home, prepared: Prepared) -> None:
        """A start that fails leaves nothing running; one that is no longer watched goes on."""
        process = _supervisor_in_background(prepared, home.logs / "console.log")
        try:
            for line in wait_until_announced(home, lambda: process.poll() is None):
                self.say(line)
        except NotStarted:
            stop(home)
            raise
        except KeyboardInterrupt:
            self.say("It goes on in the background: `make status` shows it, `make down` stops it.")


def _require_none_running(home: Home) -> None:
    pid = running_supervisor(home.run)
    if pid is not None:
        raise StackRunning(
            f"This stack is running already (process {pid}); `make status` shows it, "
            "`make down` stops it."
        )


def _become_supervisor(prepared: Prepared) -> None:
    """Django was needed to get here and must not stay in memory."""
    sys.stdout.flush()
    environment = dict(prepared.environments.supervisor)
    os.execve(sys.executable, _command(prepared), environment)  # noqa: S606


def _supervisor_in_background(prepared: Prepared, log: Path) -> subprocess.Popen[bytes]:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        return subprocess.Popen(
            _command(prepared),
            env=dict(prepared.environments.supervisor),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _command(prepared: Prepared) -> list[str]:
    return [sys.executable, "-m", "supervisor", str(prepared.spec)]
