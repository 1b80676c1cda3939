"""Three times, then ten times the usual traffic for a minute: who waits, who is refused.

``python -m bench spike``: real traffic (Azure's trace) of three tenants, one per tier, meets a pool
that the usual traffic fills to some two thirds. Then three times, later ten times as many requests
come for a minute. A slot is not taken from a stream that has it: a call waits for one to end, in
the pool's fair queue. Premium keeps its aim (P95 until the first token <= 300 ms); of the others
the lower tier waits longer and is refused more often.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import uvloop

from .backing import backing
from .engines import adapter_write, simulator
from .gateways import gateways, publish
from .load.client import connect
from .load.stamped import Delays, StampedClient
from .load.trace import Ask, read, window
from .results import Row
from .streams import raise_descriptor_limit
from .trace import TRACE, payload
from .ways import BRISK, TOKEN_MS, Way

TIERS = ("premium", "standard", "free")
PREMIUM_AIM_MS = 300.0
_EVERY = {"premium": 10, "standard": 2, "free": 1}  # each so many-th request, the first that fits
_MOST_OUTPUT = 200  # tokens: ten seconds at the simulator's pace
_REFUSALS = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Effort:
    speed: float  # of the trace, in usual times
    slots: int
    calm_seconds: float
    spike_seconds: float
    factors: tuple[float, ...]


FULL = Effort(2.5, 180, 15.0, 60.0, (3.0, 10.0))
SHORT = Effort(1.0, 60, 2.0, 5.0, (10.0,))


@dataclass(slots=True)
class Call:
    tier: str
    is_spike: bool
    due_at: float = 0.0
    waited_ms: float = 0.0  # from when it was due until its first token
    outcome: str = "failed"  # answered, refused, failed


@dataclass(frozen=True, slots=True)
class TierSeen:
    calls: int
    answered: int
    refused: int
    failed: int
    p95_ms: float  # of those answered

    @property
    def refused_share(self) -> float:
        return self.refused / self.calls if self.calls else 0.0


def measure(*, short: bool) -> list[Row]:
    raise_descriptor_limit()
    effort = SHORT if short else FULL
    rows: list[Row] = []
    for factor in effort.factors:
        with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name, ExitStack() as stack:
            ways = _open(stack, Path(name), effort)
            calls = uvloop.run(_run(ways, traffic(read(TRACE), effort, factor)))
        spike = {tier: seen(calls, tier) for tier in TIERS}
        rows += spike_rows(spike, factor, judged=not short)
    return rows


def traffic(asks: Sequence[Ask], effort: Effort, factor: float) -> list[tuple[Ask, bool]]:
    """The usual rate, then ``factor`` times as much; whether each belongs to the spike."""
    calm = window(asks, speed=effort.speed, seconds=effort.calm_seconds)
    rest = asks[len(calm) :]
    begun = rest[0].at
    later = [Ask(ask.at - begun, ask.prompt_tokens, ask.output_tokens) for ask in rest]
    spike = window(later, speed=effort.speed * factor, seconds=effort.spike_seconds)
    moved = [
        Ask(effort.calm_seconds + ask.at, ask.prompt_tokens, ask.output_tokens) for ask in spike
    ]
    return [(ask, False) for ask in calm] + [(ask, True) for ask in moved]


def tier_of(number: int) -> str:
    """A tenth of all is premium, two fifths are standard, half is free."""
    return next(tier for tier in TIERS if number % _EVERY[tier] == 0)


def seen(calls: Sequence[Call], tier: str) -> TierSeen:
    """What became of the spike's calls of a tier."""
    own = [call for call in calls if call.tier == tier and call.is_spike]
    waited = sorted(call.waited_ms for call in own if call.outcome == "answered")
    return TierSeen(
        calls=len(own),
        answered=len(waited),
        refused=sum(call.outcome == "refused" for call in own),
        failed=sum(call.outcome == "failed" for call in own),
        p95_ms=waited[int(0.95 * len(waited))] if waited else 0.0,
    )


def spike_rows(spike: dict[str, TierSeen], factor: float, *, judged: bool) -> list[Row]:
    what = f"{factor:.0f} x the usual traffic"
    shares = [spike[tier].refused_share for tier in TIERS]
    in_order = all(high <= low + 0.01 for high, low in pairwise(shares))
    rows = [
        Row(
            name=f"{what}, {tier}: first token, P95 of {one.answered} of {one.calls}",
            unit="ms",
            value=one.p95_ms,
            target=PREMIUM_AIM_MS if judged and tier == "premium" else None,
        )
        for tier, one in spike.items()
    ]
    rows += [
        Row(
            name=f"{what}, {tier}: refused",
            unit="%",
            value=100 * one.refused_share,
            target=0.0 if judged and tier == "premium" else None,
        )
        for tier, one in spike.items()
    ]
    failed = sum(one.failed for one in spike.values())
    return [
        *rows,
        Row(name=f"{what}, calls neither answered nor refused", unit="", value=failed, target=0),
        Row(name=f"{what}, refused out of order", unit="", value=float(not in_order), target=0),
    ]


def _open(stack: ExitStack, folder: Path, effort: Effort) -> dict[str, Way]:
    """A way per tier: each with its tenant's key, all through the same gateway process."""
    back = stack.enter_context(backing(folder, tiers=TIERS))
    key = back.secret("TESSERA_ENGINE_KEY")
    room = ("--max-num-seqs", str(effort.slots), "--max-model-len", "32768")
    engine = stack.enter_context(
        simulator(folder / "engine", replica="r1", engine_key=key, arguments=room)
    )
    engine.load(BRISK, adapter_write(folder / "adapter", seed=1))
    pace = {"kind": "slow", "model": BRISK, "token_ms": TOKEN_MS[BRISK], "times": 0}
    engine.call("POST", "/sim/faults", pace | {"stamps": True})
    publish(back, [engine], models=[BRISK], slots=effort.slots)
    ours = stack.enter_context(gateways(back, processes=1))
    return {
        tier: Way(tier, ours.address, tenant.key, ours.pids)
        for tier, tenant in zip(TIERS, back.tenants, strict=True)
    }


async def _run(ways: dict[str, Way], asks: Sequence[tuple[Ask, bool]]) -> list[Call]:
    delays = Delays()
    delays.is_counting = False
    calls: list[Call] = []
    idle: dict[str, list[StampedClient]] = {tier: [] for tier in TIERS}
    start = time.perf_counter() + 0.1
    async with asyncio.TaskGroup() as group:
        for number, (ask, is_spike) in enumerate(asks):
            await asyncio.sleep(max(0.0, start + ask.at - time.perf_counter()))
            tier = tier_of(number)
            call = Call(tier, is_spike, due_at=start + ask.at)
            calls.append(call)
            cut = Ask(ask.at, ask.prompt_tokens, min(ask.output_tokens, _MOST_OUTPUT))
            group.create_task(_ask(ways[tier], cut, idle[tier], delays, call))
    for clients in idle.values():
        for client in clients:
            client.leave()
    return calls


async def _ask(way: Way, ask: Ask, idle: list[StampedClient], delays: Delays, call: Call) -> None:
    client = idle.pop() if idle else None
    if client is None or not client.is_open:
        made = await connect(way.address, partial(StampedClient, delays))
        assert isinstance(made, StampedClient)
        client = made
    client.first_token_at = 0.0
    reply = await client.ask(payload(way, ask), due_at=call.due_at)
    call.waited_ms = (client.first_token_at - call.due_at) * 1000
    if client.first_token_at and reply.is_success:
        call.outcome = "answered"
    elif not reply.failure and (reply.status in _REFUSALS or reply.status == 200):
        # After ten seconds of waiting the status line is out: the refusal is an event.
        call.outcome = "refused"
    if client.is_open:
        idle.append(client)
