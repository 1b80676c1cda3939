"""Usage of one call: written down before it begins, while it runs, and once when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

from msgspec import Struct

from kernel.usage import Completeness, UsageFact, accounts_of
from serving.admission.values import Used
from serving.contracts import Endpoint, Price
from serving.gateway.rhythm import Steps
from serving.gateway.stream import Meter
from serving.journal.record import QuickFact

BYTES_PER_TOKEN = 4  # a guess for the intent only: what a death without any count books
NOTHING: Mapping[str, int] = {"input": 0, "cached_input": 0, "output": 0}
UNUSED = Used(input_tokens=0, output_tokens=0, cost_nano=0)


class Journal(Protocol):
    def intent(self, draft: UsageFact) -> None: ...
    def checkpoint(self, event_id: str, quantities: Mapping[str, int]) -> None: ...
    def settle(self, fact: UsageFact) -> None: ...


class Ending(Struct, frozen=True, kw_only=True):
    """How a call ended, as far as its usage is concerned."""

    completeness: Completeness
    billable: bool
    quantities: Mapping[str, int]
    finish_reason: str


def prompt_estimate(prompt_bytes: int) -> dict[str, int]:
    tokens = max(1, prompt_bytes // BYTES_PER_TOKEN)
    return {"input": tokens, "cached_input": 0, "output": 0}


@lru_cache(maxsize=4096)
def rates(price: Price) -> Mapping[str, int]:
    """Nano-USD per token of each class, as a fact carries them."""
    return {"input": price.input, "cached_input": price.cached_input, "output": price.output}


def finished(meter: Meter, estimate: Mapping[str, int]) -> Ending:
    """The whole answer was had."""
    if meter.has_total:
        return Ending(
            completeness=Completeness.FINAL,
            billable=True,
            quantities=meter.quantities(),
            finish_reason=meter.finish_reason,
        )
    return cut(meter, estimate, meter.finish_reason)


def cut(meter: Meter, estimate: Mapping[str, int], reason: str) -> Ending:
    """Somebody went in the middle: what was counted so far, or the estimate when nothing was."""
    counted = meter.has_counts
    return Ending(
        completeness=Completeness.ABORTED if counted else Completeness.UNKNOWN,
        billable=True,
        quantities=meter.quantities() if counted else estimate,
        finish_reason=reason,
    )


def refused(reason: str) -> Ending:
    """Nothing was computed: no replica was reached, or the engine refused the request."""
    return Ending(
        completeness=Completeness.FINAL, billable=False, quantities=NOTHING, finish_reason=reason
    )


def failed(meter: Meter, reason: str) -> Ending:
    """The engine failed before the first byte: not billed, and nobody knows what it did."""
    return Ending(
        completeness=Completeness.UNKNOWN,
        billable=False,
        quantities=meter.quantities(),
        finish_reason=reason,
    )


class Account:
    """The intent is written when this is made (raises ``JournalFull``); ``close`` settles, once."""

    __slots__ = ("_checkpointed", "_draft", "_endpoint", "_journal", "is_closed", "meter", "used")

    def __init__(self, journal: Journal, draft: UsageFact, meter: Meter) -> None:
        journal.intent(draft)
        self.meter = meter
        self.is_closed = False
        self.used = UNUSED  # what admission has to book; known once it is closed
        self._journal = journal
        self._draft = draft
        self._endpoint: Endpoint | None = None
        self._checkpointed: Mapping[str, int] | None = None

    @property
    def estimate(self) -> Mapping[str, int]:
        return self._draft.quantities

    @property
    def was_asked(self) -> bool:
        """Whether any replica was asked for anything."""
        return self._endpoint is not None

    def ask(self, endpoint: Endpoint) -> None:
        """Which replica is asked now."""
        self._endpoint = endpoint

    def checkpoint(self) -> None:
        """Write down the count so far, if it changed."""
        if self.is_closed or not self.meter.has_counts:
            return
        quantities = self.meter.quantities()
        if quantities != self._checkpointed:
            self._journal.checkpoint(self._draft.event_id, quantities)
            self._checkpointed = quantities

    def close(self, ending: Ending) -> bool:
        """Settle, unless that was done before; whether it was done now."""
        if self.is_closed:
            return False
        self.is_closed = True
        fact = _fact(self._draft, self._endpoint, ending)
        self._journal.settle(fact)
        cost = fact.cost_nano()
        self.used = Used(
            input_tokens=ending.quantities["input"],
            output_tokens=ending.quantities["output"],
            cost_nano=cost,
            accounts=accounts_of(fact) if cost else (),
        )
        return True


class OpenAccounts:
    """Accounts of streams under way; one timer checkpoints all of them."""

    def __init__(self) -> None:
        self._open: set[Account] = set()

    def add(self, account: Account) -> None:
        self._open.add(account)

    def discard(self, account: Account) -> None:
        self._open.discard(account)

    def checkpoint(self) -> Steps:
        for account in tuple(self._open):
            account.checkpoint()
            yield


def _fact(draft: UsageFact, endpoint: Endpoint | None, ending: Ending) -> UsageFact:
    """The draft with its end. Spelled out: copying a frozen value field by field costs double."""
    return QuickFact(
        event_id=draft.event_id,
        occurred_at=draft.occurred_at,
        organization=draft.organization,
        project=draft.project,
        key=draft.key,
        deployment=draft.deployment,
        version=draft.version,
        quantities=ending.quantities,
        completeness=ending.completeness,
        billable=ending.billable,
        model=draft.model,
        rollout=draft.rollout,
        arm=draft.arm,
        pool=draft.pool,
        replica=endpoint.replica if endpoint else "",
        incarnation=endpoint.incarnation if endpoint else "",
        cluster=draft.cluster,
        tier=draft.tier,
        finish_reason=ending.finish_reason,
        price_version=draft.price_version,
        rates=draft.rates,
    )
