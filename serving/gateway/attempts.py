"""What one attempt on one replica may come to, when it is not the answer."""

from __future__ import annotations

from serving.gateway.ejection import Failure
from serving.gateway.errors import Busy, GatewayError
from serving.gateway.fields import Wanted
from serving.gateway.what import not_ready


class Elsewhere(Exception):
    """This replica did not answer; another may. ``error`` is what the client hears if none does."""

    def __init__(self, error: GatewayError, *, was_asked: bool) -> None:
        self.error = error
        self.was_asked = was_asked
        super().__init__(error.code)


class TooLong(Exception):
    """The engine finds prompt and output limit together longer than its context."""


def says_much(failure: Failure, wanted: Wanted) -> bool:
    """Whether a failure tells against its replica.

    An engine may choke on a client's own grammar (vLLM 0.32 answers 500 to some it cannot compile).
    Nobody else shall lose a replica by it.
    """
    return not (wanted.is_constrained and failure in {Failure.ERROR, Failure.GARBAGE})


def nobody(model: str, *, is_held: bool) -> Elsewhere:
    """No replica holds the model, or all that do are ejected."""
    return Elsewhere(unreachable() if is_held else not_ready(model), was_asked=False)


def unreachable() -> Busy:
    return Busy(
        "The model's engine cannot be reached right now; try again shortly.",
        code="engine_unreachable",
        retry_after_seconds=2,
    )


def engine_busy() -> Busy:
    return Busy(
        "The model's engine is full right now; try again shortly.",
        code="engine_busy",
        retry_after_seconds=1,
    )
