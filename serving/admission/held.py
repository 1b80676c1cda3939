"""What a process holds: the truth that Redis can be rebuilt from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from serving.admission.prepared import Prepared
from serving.admission.values import NO_LIMITS, AdmissionRequest, Allowance, Grant, Tier, Used

TIERS: Final[dict[Tier, int]] = {"premium": 1, "standard": 2, "free": 3}
SERVICE_OF_INPUT, SERVICE_OF_OUTPUT = 1, 2  # the weights of fairness, as in lua/queue.lua


class Call:
    """One call from its admission to its settlement. Amounts are upper bounds, in nano-USD."""

    __slots__ = (
        "charged", "grant", "grant_id", "is_local", "nano", "output_tokens", "place", "pool",
        "prepared", "request", "tokens",
    )  # fmt: skip

    def __init__(self, request: AdmissionRequest, prepared: Prepared, output_tokens: int) -> None:
        self.request = request
        self.prepared = prepared
        self.grant_id = request.grant_id
        self.pool = request.pool
        self.output_tokens = output_tokens
        self.place = (request.tenant, TIERS[request.tier], request.weight)
        self.charged = 0  # what the tenant's counter was raised by
        self.is_local = False
        self.grant: Grant | None = None  # what its owner was given; none while it waits
        self.tokens = 0
        self.nano = 0
        self.bound(request.demand.input_tokens)

    def bound(self, input_tokens: int) -> None:
        """The upper bound with this much input."""
        demand = self.request.demand
        output = demand.choices * self.output_tokens
        self.tokens = input_tokens + output
        self.nano = input_tokens * demand.input_nano + output * demand.output_nano

    def service(self, used: Used) -> int:
        return SERVICE_OF_INPUT * used.input_tokens + SERVICE_OF_OUTPUT * used.output_tokens

    def granted(self, *, at: int, allowance: Allowance = NO_LIMITS) -> Grant:
        self.grant = Grant(
            grant_id=self.grant_id,
            pool=self.pool,
            at=at,
            output_tokens=self.output_tokens,
            allowance=allowance,
            is_local=self.is_local,
        )
        return self.grant


class Holdings:
    """All of the mutable state: the calls under way, those that wait, and what we ever spent."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.waiting: dict[str, Call] = {}
        self.spent: Counter[str] = Counter()  # per account, in nano-USD; only grows
        self.changed: set[str] = set()  # accounts spent from since somebody emptied this

    def spend(self, accounts: Iterable[str], nano: int) -> list[str | int]:
        """{account, total...}, flat: what these accounts have come to."""
        flat: list[str | int] = []
        for account in accounts:
            self.spent[account] += nano
            self.changed.add(account)
            flat += (account, self.spent[account])
        return flat

    def holds(self) -> list[list[str | int]]:
        """{grant, nano, account...} of every call that money is held for."""
        return [
            [call.grant_id, call.nano, *call.prepared.accounts]
            for calls in (self.calls, self.waiting)
            for call in calls.values()
            if call.nano and call.prepared.accounts
        ]

    def totals(self) -> list[str | int]:
        """{account, total...}, flat. From now on ``changed`` says what differs."""
        self.changed.clear()
        return [value for item in self.spent.items() for value in item]

    def totals_changed(self) -> list[str | int]:
        return [value for account in self.changed for value in (account, self.spent[account])]

    def leases(self) -> tuple[list[list[str]], list[list[str]]]:
        """{pool, grant...} and {subject, grant...}, each at most ``_CHUNK`` long."""
        pools: defaultdict[str, list[str]] = defaultdict(list)
        subjects: defaultdict[str, list[str]] = defaultdict(list)
        for call in self.calls.values():
            pools[call.pool].append(call.grant_id)
        for calls in (self.calls, self.waiting):
            for call in calls.values():
                for subject, _ in call.prepared.concurrency:
                    subjects[subject].append(call.grant_id)
        return _chunks(pools), _chunks(subjects)

    def pools(self) -> dict[str, tuple[int, int, int, int]]:
        """Per pool: calls under way, their tokens at most, calls that wait, theirs."""
        found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        for index, calls in ((0, self.calls), (2, self.waiting)):
            for call in calls.values():
                counts = found[call.pool]
                counts[index] += 1
                counts[index + 1] += call.tokens
        return {pool: (one[0], one[1], one[2], one[3]) for pool, one in found.items()}


_CHUNK = 500


def _chunks(named: dict[str, list[str]]) -> list[list[str]]:
    return [
        [name, *grants[start : start + _CHUNK]]
        for name, grants in named.items()
        for start in range(0, len(grants), _CHUNK)
    ]


def allowance_from(answer: Sequence[int]) -> Allowance:
    """Of what the script answered to ``admit``, granted or refused."""
    limit, remaining, reset, limit_tokens, remaining_tokens, reset_tokens = answer[4:10]
    return Allowance(
        limit_requests=limit or None,
        remaining_requests=remaining if limit else None,
        reset_requests_seconds=reset / 1e6 if limit else None,
        limit_tokens=limit_tokens or None,
        remaining_tokens=remaining_tokens if limit_tokens else None,
        reset_tokens_seconds=reset_tokens / 1e6 if limit_tokens else None,
    )
