"""Counters under vLLM's names, as text for Prometheus."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_ITL = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_E2E = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0)
_REASONS = ("stop", "length", "abort", "error")


class Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, *, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def lines(self, name: str, labels: str) -> list[str]:
        total = 0
        lines = []
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
        return [*lines, f"{name}_sum{{{labels}}} {self._sum}", f"{name}_count{{{labels}}} {total}"]


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is so now, read when asked."""

    running: int
    waiting_for_capacity: int
    waiting_for_adapter: int
    kv_cache: float
    cache_queries: int
    cache_hits: int
    max_loras: int
    running_adapters: str
    waiting_adapters: str
    block_size: int
    cache_blocks: int


@dataclass(slots=True)
class Metrics:
    """What has been counted since the start."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    first_token: Histogram = field(default_factory=lambda: Histogram(_TTFT))
    inter_token: Histogram = field(default_factory=lambda: Histogram(_ITL))
    end_to_end: Histogram = field(default_factory=lambda: Histogram(_E2E))

    def text(self, model: str, gauges: Gauges) -> bytes:
        labels = f'engine="0",model_name="{model}"'
        lines = [
            line
            for name, kind, values in self._families(labels, gauges)
            for line in (f"# TYPE {name} {kind}", *values)
        ]
        return ("\n".join(lines) + "\n").encode()

    def _families(self, labels: str, now: Gauges) -> list[tuple[str, str, list[str]]]:
        waiting = {"capacity": now.waiting_for_capacity, "deferred": now.waiting_for_adapter}
        lora = (
            f'max_lora="{now.max_loras}",running_lora_adapters="{now.running_adapters}",'
            f'waiting_lora_adapters="{now.waiting_adapters}"'
        )
        config = f'block_size="{now.block_size}",num_gpu_blocks="{now.cache_blocks}",engine="0"'
        return [
            _one("num_requests_running", "gauge", labels, now.running),
            _one("num_requests_waiting", "gauge", labels, sum(waiting.values())),
            _by("num_requests_waiting_by_reason", "gauge", labels, "reason", waiting),
            _one("kv_cache_usage_perc", "gauge", labels, now.kv_cache),
            _one("prefix_cache_queries_total", "counter", labels, now.cache_queries),
            _one("prefix_cache_hits_total", "counter", labels, now.cache_hits),
            _one("prompt_tokens_total", "counter", labels, self.prompt_tokens),
            _one("generation_tokens_total", "counter", labels, self.generation_tokens),
            _by(
                "request_success_total",
                "counter",
                labels,
                "finished_reason",
                {reason: self.finished[reason] for reason in _REASONS},
            ),
            _histogram("time_to_first_token_seconds", labels, self.first_token),
            _histogram("inter_token_latency_seconds", labels, self.inter_token),
            _histogram("e2e_request_latency_seconds", labels, self.end_to_end),
            _one("lora_requests_info", "gauge", lora, time.time()),
            _one("cache_config_info", "gauge", config, 1),
        ]


def _one(name: str, kind: str, labels: str, value: float) -> tuple[str, str, list[str]]:
    return f"vllm:{name}", kind, [f"vllm:{name}{{{labels}}} {value}"]


def _by(
    name: str, kind: str, labels: str, label: str, values: dict[str, int]
) -> tuple[str, str, list[str]]:
    lines = [f'vllm:{name}{{{labels},{label}="{key}"}} {value}' for key, value in values.items()]
    return f"vllm:{name}", kind, lines


def _histogram(name: str, labels: str, histogram: Histogram) -> tuple[str, str, list[str]]:
    return f"vllm:{name}", "histogram", histogram.lines(f"vllm:{name}", labels)
