"""What the supervisor refuses, each as one sentence with the way out.

SupervisorError
    FolderUnusable       a folder is another user's, or open to others
    DataDamaged          a server's data folder is there but not whole
    SetupFailed          a server's own set-up command failed
    PortTaken            another process listens where we were told to
    StackRunning         this data folder already has a running stack
    SpecInvalid          the description of the parts breaks a rule
"""

from __future__ import annotations


class SupervisorError(Exception):
    """A refusal; its text is meant for the person who typed the command."""


class FolderUnusable(SupervisorError):
    pass


class DataDamaged(SupervisorError):
    pass


class SetupFailed(SupervisorError):
    pass


class PortTaken(SupervisorError):
    pass


class StackRunning(SupervisorError):
    pass


class SpecInvalid(SupervisorError):
    pass
