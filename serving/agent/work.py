"""Make an engine's adapters agree with the orders: fetch, load, prove, withdraw, unload."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from kernel.clock import monotonic
from serving.agent.errors import AgentProblem
from serving.agent.fetch import AdapterCache, Source
from serving.agent.pace import Pace
from serving.agent.proof import SMALLEST_EFFECT, Signature, effect, take_signature
from serving.agent.residency import Resident, changes, failed
from serving.agent.watch import Incarnation
from serving.contracts import AgentOrders

AT_ONCE = 3

log = logging.getLogger(__name__)


class AdapterWork:
    """Brings adapters to an incarnation; what it finds out is written into that one only."""

    def __init__(
        self,
        cache: AdapterCache,
        source: Source,
        *,
        changed: Callable[[], None],
        pace: Pace,
    ) -> None:
        self._cache = cache
        self._source = source
        self._changed = changed
        self._pace = pace
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def converge(self, present: Incarnation, orders: AgentOrders) -> float:
        """Take the next steps; return after how many seconds to come again at the latest."""
        await self._sweep(present, orders)
        if present.base_signature is None:
            present.base_signature = await take_signature(present.engine, orders.base)
        todo = changes(orders.adapters, present.residents, now=monotonic())
        if todo.drop:
            await self._withdraw(present, todo.drop)
        async with asyncio.TaskGroup() as tasks:
            for resident in todo.bring:
                tasks.create_task(self._bring(present, resident, present.base_signature))
        again = changes(orders.adapters, present.residents, now=monotonic())
        if again.bring:
            return 0.0
        if again.look_again_at is None:
            return self._pace.sweep_seconds
        return min(self._pace.sweep_seconds, max(0.0, again.look_again_at - monotonic()))

    async def _sweep(self, present: Incarnation, orders: AgentOrders) -> None:
        """Forget what the engine lost, unload what nobody ordered, and keep the cache's files."""
        listed = await present.engine.adapters(base=orders.base)
        ordered = {adapter.name for adapter in orders.adapters}
        for stranger in listed - ordered - present.residents.keys():
            await present.engine.unload(stranger)
        for name, resident in list(present.residents.items()):
            self._cache.touch(resident.adapter.digest)
            if resident.state == "proven" and name not in listed:
                log.warning("The engine lost %s.", name)
                self._note(present, Resident(resident.adapter))

    async def _withdraw(self, present: Incarnation, names: tuple[str, ...]) -> None:
        """Say that they are gone, give gateways a moment to hear of it, then unload."""
        for name in names:
            del present.residents[name]
        self._changed()
        await asyncio.sleep(self._pace.withdraw_seconds)
        for name in names:
            await present.engine.unload(name)
            log.info("Unloaded %s.", name)

    async def _bring(self, present: Incarnation, resident: Resident, base: Signature) -> None:
        async with self._slots:
            self._note(present, resident)
            try:
                folder = await self._cache.ensure(resident.adapter, self._source)
                if resident.state == "fetching":  # a failed one stays so until it is proven
                    resident = replace(resident, state="loading")
                    self._note(present, resident)
                await present.engine.load(resident.adapter.name, str(folder))
                outcome = await self._prove(present, resident, base)
            except AgentProblem as problem:
                outcome = failed(resident, str(problem), lasting=problem.lasting, now=monotonic())
            log.info("%s is %s. %s", outcome.adapter.name, outcome.state, outcome.reason)
            self._note(present, outcome)

    async def _prove(self, present: Incarnation, resident: Resident, base: Signature) -> Resident:
        name = resident.adapter.name
        signature = await take_signature(present.engine, name)
        if not signature.is_finite:
            reason = "With this adapter the model computes values that are no numbers (NaN)."
            return failed(resident, reason, lasting=True, now=monotonic())
        moved = effect(base, signature)
        if moved >= SMALLEST_EFFECT:
            return replace(resident, state="proven", reason="", failures=0)
        await present.engine.unload(name)
        reason = (
            f"The adapter does not change the base model's answers (largest effect {moved:.3f}, "
            f"needed {SMALLEST_EFFECT}). Are its weights zero, or was it saved before training?"
        )
        return replace(resident, state="no_effect", reason=reason)

    def _note(self, present: Incarnation, resident: Resident) -> None:
        before = present.residents.get(resident.adapter.name)
        present.residents[resident.adapter.name] = resident
        if before is None or before.report() != resident.report():
            self._changed()
