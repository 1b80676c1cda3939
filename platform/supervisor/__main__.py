"""``python -m supervisor spec.json``: run the stack that the file describes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from supervisor.errors import SupervisorError
from supervisor.folders import private_folder
from supervisor.leftovers import claim, end_leftovers
from supervisor.logs import Console
from supervisor.parts import Stack
from supervisor.sockets import open_sockets
from supervisor.supervisor import Supervisor


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m supervisor spec.json", file=sys.stderr)  # noqa: T201
        return 2
    try:
        return _supervise(Stack.load(Path(arguments[0])))
    except SupervisorError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1


def _supervise(stack: Stack) -> int:
    os.umask(0o077)  # whatever the parts write is this user's alone
    run = private_folder(Path(stack.run))
    private_folder(Path(stack.logs))
    with claim(run):
        console = Console.of_this_process() if stack.console else Console(None)
        for name in end_leftovers(run):
            console.show("tessera", f"Ended {name}, left over from a run that was killed.")
        sockets = open_sockets(stack.listeners) if stack.listeners else None
        return Supervisor(stack, sockets=sockets, console=console).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
