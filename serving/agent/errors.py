"""What can keep an agent from its work.

AgentProblem
    ControlUnavailable     the control plane does not answer, or not sensibly; try again
    ControlRefused         it answered, and the answer is no (bad token, unknown artifact)
    FetchFailed            a file did not arrive as ordered
    EngineUnavailable      the engine does not answer, or answers 5xx; try again
    EngineRefused          the engine says the adapter is wrong

The message is one sentence that may be shown to the tenant; ``lasting`` says that trying again
soon is pointless.
"""

from __future__ import annotations


class AgentProblem(Exception):
    lasting = False


class ControlUnavailable(AgentProblem):
    pass


class ControlRefused(AgentProblem):
    lasting = True

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class FetchFailed(AgentProblem):
    pass


class EngineUnavailable(AgentProblem):
    pass


class EngineRefused(AgentProblem):
    lasting = True
