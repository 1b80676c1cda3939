"""Other ways of choosing a replica, as references: ``python -m bench.policies <name> ...`` runs a
gateway that chooses that way and is ours in all else.
"""

from __future__ import annotations

import sys
from collections.abc import Collection

from serving.gateway.__main__ import main
from serving.gateway.replica import Replica, Wish
from serving.gateway.what import Target
from serving.gateway.where import Fleet


class RoundRobin(Fleet):
    """One after the other. All of the mutable state: how many were chosen."""

    def __init__(self) -> None:
        super().__init__()
        self._chosen = 0

    def choose(
        self, target: Target, wish: Wish, *, now: float, tried: Collection[str], asked: int
    ) -> Replica | None:
        left = _untried(self.holding(target, now), tried)
        self._chosen += 1
        return left[self._chosen % len(left)] if left else None


class LeastRequests(Fleet):
    """The one with the fewest requests under way; of equals, any."""

    def choose(
        self, target: Target, wish: Wish, *, now: float, tried: Collection[str], asked: int
    ) -> Replica | None:
        left = _untried(self.holding(target, now), tried)
        # The prompt's last sum stands for a random number.
        return min(
            left,
            key=lambda replica: (replica.outstanding, (replica.seed ^ wish.blocks[-1]) % 65_521),
            default=None,
        )


POLICIES: dict[str, type[Fleet]] = {"round-robin": RoundRobin, "least-requests": LeastRequests}


def _untried(replicas: list[Replica], tried: Collection[str]) -> list[Replica]:
    return [one for one in replicas if one.endpoint.incarnation not in tried]


if __name__ == "__main__":
    sys.exit(main(POLICIES[sys.argv.pop(1)]()))
