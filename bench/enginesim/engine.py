"""The engine's state: what is loaded, what runs, what waits. Knows no HTTP but the answers it hands
on.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import Literal

from .adapters import BASE_FINGERPRINT, Adapter
from .asks import Ask, Refused
from .cache import PrefixCache
from .faults import Fault, Faults
from .generation import Generation, Pace
from .http import Connection
from .journal import Ended, Journal, Line, now
from .metrics import Gauges, Metrics
from .options import Options


class Engine:
    """Runs as many requests at once as ``max_num_seqs`` and ``max_loras`` allow; the others wait in
    order.
    """

    def __init__(self, options: Options, journal: Journal) -> None:
        self.options = options
        self.adapters: dict[str, Adapter] = {}
        self.faults = Faults()
        self.metrics = Metrics()
        self._journal = journal
        self._cache = PrefixCache(block_tokens=options.block_size, blocks=options.cache_blocks)
        self._pace = Pace(options.first_token_ms / 1000, options.token_ms / 1000)
        self._running: set[Generation] = set()
        self._waiting: deque[Generation] = deque()
        self._numbers: dict[Generation, int] = {}
        self._count = 0
        self._prefilled_at = 0.0  # when all prompts taken so far are computed
        self.idle = asyncio.Event()
        self.idle.set()

    def fingerprint(self, model: str) -> bytes:
        """Of the weights behind a name. Raises ``Refused`` for a name that is not served."""
        if model in self.options.served_model_name:
            return BASE_FINGERPRINT
        adapter = self.adapters.get(model)
        if adapter is None:
            aliases = ", ".join(self.options.served_model_name)
            raise Refused(
                404,
                f"The model `{model}` does not exist. Valid aliases: {aliases}.",
                kind="NotFoundError",
                param="model",
            )
        return adapter.fingerprint

    def submit(
        self, ask: Ask, reply: Connection, *, path: str, model: str, fault: Fault | None
    ) -> Generation:
        """Take a request in; it starts when there is room. Raises ``Refused``."""
        fingerprint = self.fingerprint(model)
        cached = sum(
            self._cache.lookup(prompt, salt=ask.salt, adapter=model) for prompt in ask.prompts
        )
        generation = Generation(
            ask,
            reply,
            request_id=ask.request_id or secrets.token_hex(8),
            model=model,
            fingerprint=fingerprint,
            cached=cached if self.options.enable_prompt_tokens_details else None,
            pace=self._pace if fault is None else _paced(self._pace, fault),
            fault=fault,
            uncached=ask.all_prompt_tokens - cached,
            on_token=self._token,
            on_end=self._end,
        )
        self._begin(generation, path=path, cached=cached)
        if self._has_room(generation):
            self._start(generation)
        else:
            self._waiting.append(generation)
        return generation

    def gauges(self) -> Gauges:
        running = self._adapter_names(self._running)
        waiting = [self._lacks_adapter_room(one) for one in self._waiting]
        capacity = self.options.cache_blocks * self.options.block_size
        held = sum(one.ask.all_prompt_tokens + one.tokens for one in self._running)
        return Gauges(
            running=len(self._running),
            waiting_for_capacity=waiting.count(False),
            waiting_for_adapter=waiting.count(True),
            kv_cache=min(1.0, held / capacity),
            cache_queries=self._cache.queried_tokens,
            cache_hits=self._cache.hit_tokens,
            max_loras=self.options.max_loras,
            running_adapters=",".join(sorted(running)),
            waiting_adapters=",".join(sorted(self._adapter_names(self._waiting))),
            block_size=self.options.block_size,
            cache_blocks=self.options.cache_blocks,
        )

    def _has_room(self, generation: Generation) -> bool:
        return len(self._running) < self.options.max_num_seqs and not self._lacks_adapter_room(
            generation
        )

    def _lacks_adapter_room(self, generation: Generation) -> bool:
        if generation.model not in self.adapters:
            return False
        names = self._adapter_names(self._running)
        return generation.model not in names and len(names) >= self.options.max_loras

    def _adapter_names(self, generations: set[Generation] | deque[Generation]) -> set[str]:
        base = self.options.served_model_name
        return {one.model for one in generations if one.model not in base}

    def _start(self, generation: Generation) -> None:
        self._running.add(generation)
        generation.start(after_seconds=self._prefill_seconds(generation))

    def _prefill_seconds(self, generation: Generation) -> float:
        """How long until its prompt is computed, behind those taken before it."""
        rate = self.options.prefill_tokens_per_second
        if not rate:
            return 0.0
        at = asyncio.get_running_loop().time()
        self._prefilled_at = max(self._prefilled_at, at) + generation.uncached / rate
        return self._prefilled_at - at

    def _start_waiting(self) -> None:
        for generation in list(self._waiting):
            if self._has_room(generation):
                self._waiting.remove(generation)
                self._start(generation)

    def _begin(self, generation: Generation, *, path: str, cached: int) -> None:
        self._count += 1
        self.idle.clear()
        ask = generation.ask
        self._numbers[generation] = self._count
        self.metrics.prompt_tokens += ask.all_prompt_tokens
        if self._journal.is_kept:
            self._journal.write(
                Line(
                    at="begin",
                    number=self._count,
                    process=self._journal.process,
                    time=now(),
                    request=ask.request_id,
                    path=path,
                    model=generation.model,
                    salt=ask.salt,
                    stream=ask.stream,
                    prompt_tokens=ask.all_prompt_tokens,
                    cached_tokens=cached,
                    max_tokens=ask.max_tokens,
                )
            )

    def _token(self, generation: Generation) -> None:
        if self.options.journal_progress:
            self._journal.write(self._line("token", generation))

    def _end(self, generation: Generation, ended: Ended, reason: str) -> None:
        self._count_end(generation, reason if ended in ("finished", "aborted") else "error")
        if self._journal.is_kept:
            line = self._line("end", generation)
            line.ended, line.reason = ended, reason
            self._journal.write(line)
        del self._numbers[generation]
        if generation in self._running:
            self._running.remove(generation)
            if self._waiting:
                self._start_waiting()
        else:
            self._waiting.remove(generation)
        if not self._running and not self._waiting:
            self.idle.set()

    def _line(self, at: Literal["token", "end"], generation: Generation) -> Line:
        return Line(
            at=at,
            number=self._numbers[generation],
            process=self._journal.process,
            time=now(),
            request=generation.ask.request_id,
            tokens=generation.tokens,
        )

    def _count_end(self, generation: Generation, reason: str) -> None:
        metrics = self.metrics
        metrics.generation_tokens += generation.tokens
        metrics.finished[reason] += 1
        if not generation.out:
            return
        elapsed = generation.elapsed()
        first = generation.first_token_at - generation.submitted
        metrics.first_token.observe(first)
        metrics.end_to_end.observe(elapsed)
        if generation.out > 1:
            gaps = generation.out - 1
            metrics.inter_token.observe(max(0.0, elapsed - first) / gaps, times=gaps)


def _paced(pace: Pace, fault: Fault) -> Pace:
    if fault.kind != "slow":
        return pace
    return Pace(pace.first_token_seconds, fault.token_ms / 1000)
