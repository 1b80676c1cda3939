"""What routing by prefix is worth, beside round robin and least requests: ``bench.routing``.

Requests share the beginnings of their prompts, as those of an application with a system prompt or a
document do: a few are popular, many are not. Four engine simulators compute prompts one after the
other at a fixed pace, except for what their caches hold. Every way of choosing gets the same
requests at the same instants, through two gateway processes and new engines that were warmed for a
while. Once each engine's cache holds a third of all beginnings, once all of them.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import uvloop

from serving.contracts import Endpoint
from serving.gateway import prefix
from serving.gateway.replica import Replica, Wish
from serving.gateway.where import choose

from .backing import Backing, backing
from .cost import Unusable
from .engines import Simulator, adapter_write, simulator
from .gateways import gateways, publish
from .load.client import request_bytes
from .load.runs import Run, timed
from .results import Row, report, this_machine

OURS = "serving.gateway"
REFERENCES = {"round robin": "round-robin", "least requests": "least-requests"}
ENGINES = 4
MODEL = "support"
PREFIX_BYTES = 4096
BLOCK_TOKENS = 16
ANSWER_TOKENS = 32
PREFILL_TOKENS_PER_SECOND = 8_000
SEED = 20_241_121
COMPUTED_TARGET = 0.5  # of the prompt tokens that round robin has computed, tight caches
TAIL_TARGET = 0.5  # of round robin's p99 until the first token, tight caches
CHOICE_TARGET_US = 25.0


@dataclass(frozen=True, slots=True)
class Effort:
    name: str
    rate: float
    warm_seconds: float  # until the caches hold something; not counted
    seconds: float
    beginnings: int


FULL = Effort("routing", rate=40, warm_seconds=10, seconds=30, beginnings=48)
SHORT = Effort("routing-short", rate=25, warm_seconds=2, seconds=5, beginnings=16)


@dataclass(frozen=True, slots=True)
class Found:
    """What one way of choosing gave."""

    hit_percent: float
    computed_tokens: float
    first_p50_ms: float
    first_p99_ms: float


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description=__doc__)
    parser.add_argument("--short", action="store_true", help="less of everything, for CI")
    short = parser.parse_args(argv).short
    machine = this_machine()
    name = (SHORT if short else FULL).name
    print(f"\nAlso in {report(name, measure(short=short), machine=machine)}")


def measure(*, short: bool) -> list[Row]:
    effort = SHORT if short else FULL
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name, ExitStack() as stack:
        back = stack.enter_context(backing(Path(name)))
        chance = random.Random(SEED)
        beginnings = [_text(chance, PREFIX_BYTES) for _ in range(effort.beginnings)]
        warm, asks = (
            workload(chance, beginnings, rate=effort.rate, seconds=seconds, key=back.tenant.key)
            for seconds in (effort.warm_seconds, effort.seconds)
        )
        blocks = effort.beginnings * PREFIX_BYTES // 4 // BLOCK_TOKENS
        scenes = (("tight caches", blocks // 3), ("ample caches", blocks * 8))
        for caches, size in scenes[:1] if short else scenes:
            found = {
                way: _run(back, warm, asks, program=program, cache_blocks=size)
                for way, program in _ways().items()
            }
            rows += found_rows(caches, found, is_judged=caches == "tight caches")
    return [*rows, *choice_rows()]


def workload(
    chance: random.Random, beginnings: Sequence[str], *, rate: float, seconds: float, key: str
) -> list[tuple[float, bytes]]:
    """Requests and when they are due: as by chance, beginnings by Zipf's law, each end its own."""
    weights = [1 / rank for rank in range(1, len(beginnings) + 1)]
    asks, instant = [], 0.0
    while instant < seconds:
        instant += chance.expovariate(rate)
        [beginning] = chance.choices(beginnings, weights)
        asks.append((instant, _request(beginning, _text(chance, 200), key=key)))
    return asks


def found_rows(caches: str, found: dict[str, Found], *, is_judged: bool) -> list[Row]:
    ours = found[OURS]
    rows = []
    for way in REFERENCES:
        other = found[way]
        judged = is_judged and way == "round robin"
        figures = (
            ("prefix-cache hit rate", "%", ours.hit_percent, other.hit_percent, None),
            (
                "prompt tokens computed",
                "tokens",
                ours.computed_tokens,
                other.computed_tokens,
                COMPUTED_TARGET,
            ),
            ("first token p50", "ms", ours.first_p50_ms, other.first_p50_ms, None),
            ("first token p99", "ms", ours.first_p99_ms, other.first_p99_ms, TAIL_TARGET),
        )
        rows += [
            Row(
                name=f"{what}, {caches}",
                unit=unit,
                value=value,
                reference=way,
                reference_value=reference,
                target=target if judged else None,
            )
            for what, unit, value, reference, target in figures
        ]
    return rows


def choice_rows(times: int = 4000) -> list[Row]:
    """CPU of a whole choice (sums of the prompt's blocks, the choice, the counting) in process."""
    rest = b'{"messages":[' + b"x" * PREFIX_BYTES
    rows = []
    for count in (1, 4, 16):
        replicas = [Replica(_endpoint(f"r{number}")) for number in range(count)]

        def once(replicas: list[Replica] = replicas) -> None:
            sums = prefix.blocks(rest, salt="0" * 64, adapter="adapter")
            wish = Wish(adapter="adapter", blocks=sums, prompt_tokens=1024, output_tokens=64)
            choice = choose(replicas, wish, now=1.0)
            assert choice is not None
            choice.replica.take(wish).give_back()

        rows.append(
            Row(
                name=f"choice of a replica among {count}, prompt of 4 KB, CPU",
                unit="us",
                value=_cpu_us(once, times),
                target=CHOICE_TARGET_US,
            )
        )
    return rows


def _ways() -> dict[str, tuple[str, ...]]:
    return {OURS: (OURS,)} | {
        name: ("bench.policies", policy) for name, policy in REFERENCES.items()
    }


def _run(
    back: Backing,
    warm: list[tuple[float, bytes]],
    asks: list[tuple[float, bytes]],
    *,
    program: tuple[str, ...],
    cache_blocks: int,
) -> Found:
    """One way of choosing, on engines and gateways of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=back.folder)))
        adapter = adapter_write(folder / "adapter", seed=1)
        engines = [_engine(stack, back, folder, number, cache_blocks) for number in range(ENGINES)]
        for engine in engines:
            engine.load(MODEL, adapter)
        publish(back, engines, models=[MODEL], slots=256)
        ours = stack.enter_context(gateways(back, processes=2, program=program))
        _asked(ours.address, warm)
        before = _cache_counts(engines)
        run = _asked(ours.address, asks)
        queried, hit = (b - a for a, b in zip(before, _cache_counts(engines), strict=True))
    waits = sorted(reply.first_seconds * 1000 for reply in run.replies)
    cuts = quantiles(waits, n=100)
    return Found(100 * hit / queried, queried - hit, cuts[49], cuts[98])


def _asked(address: str, asks: list[tuple[float, bytes]]) -> Run:
    run = uvloop.run(timed(address, asks))
    if run.failures:
        first = run.failures[0]
        raise Unusable(f"{len(run.failures)} failed: {first.status} {first.failure}")
    return run


def _engine(
    stack: ExitStack, back: Backing, folder: Path, number: int, cache_blocks: int
) -> Simulator:
    arguments = (
        *("--cache-blocks", str(cache_blocks)),
        *("--block-size", str(BLOCK_TOKENS)),
        *("--prefill-tokens-per-second", str(PREFILL_TOKENS_PER_SECOND)),
        *("--token-ms", "10"),
    )
    name = f"r{number}"
    return stack.enter_context(
        simulator(
            folder / name,
            replica=name,
            engine_key=back.secret("TESSERA_ENGINE_KEY"),
            arguments=arguments,
        )
    )


def _cache_counts(engines: Sequence[Simulator]) -> tuple[float, float]:
    """Prompt tokens looked up in the engines' prefix caches, and found there."""
    texts = [engine.call("GET", "/metrics")[1] for engine in engines]

    def counter(name: str) -> float:
        pattern = re.compile(rf"^vllm:{name}_total{{[^}}]*}} (\S+)$", re.MULTILINE)
        return sum(float(found) for text in texts for found in pattern.findall(text))

    return counter("prefix_cache_queries"), counter("prefix_cache_hits")


def _request(beginning: str, end: str, *, key: str) -> bytes:
    body = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": beginning},
            {"role": "user", "content": end},
        ],
        "max_tokens": ANSWER_TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    return request_bytes("/v1/chat/completions", json.dumps(body).encode(), key=key)


def _text(chance: random.Random, size: int) -> str:
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=size))


def _endpoint(name: str) -> Endpoint:
    return Endpoint(
        pool="pool", replica=name, incarnation=name, address="unix:x", slots=256, adapters=()
    )


def _cpu_us(action: Callable[[], None], times: int) -> float:
    """Per call; the best of five, as the rest is other work on the machine."""
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        for _ in range(times):
            action()
        best = min(best, (time.process_time() - begun) / times * 1e6)
    return best


if __name__ == "__main__":
    main()
