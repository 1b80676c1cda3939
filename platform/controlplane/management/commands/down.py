"""``manage.py down``: stop what ``up`` started."""

from __future__ import annotations

import os
from typing import Any

from controlplane.embedded.home import Home
from controlplane.embedded.waiting import stop
from controlplane.management.plain import PlainCommand
from supervisor.leftovers import running_supervisor


class Command(PlainCommand):
    help = "Stop everything that `up` started; data is kept."

    def handle(self, *_args: Any, **_options: Any) -> None:
        home = Home.named_by(os.environ)
        if running_supervisor(home.run) is not None:
            self.say("Stopping; an engine takes some seconds.")
        self.say("Stopped." if stop(home) else "Nothing is running.")
