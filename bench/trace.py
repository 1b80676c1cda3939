"""An hour of real traffic at ten times its speed: ``python -m bench.trace`` for all of it.

Azure's published trace of conversations (some 5.5 requests a second, prompts of 1,000 tokens,
answers of 211) is replayed against the engine simulator: straight, through one gateway process and
through nginx, in turns. Every answer is streamed at 20 tokens a second, so some 580 are under way
at once and 11,700 chunks a second pass.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import quantiles

import uvloop

from .backing import ROOT
from .gateways import CONTEXT_TOKENS
from .load.trace import Ask, read, replay, window
from .results import Row, report, rows_beside, this_machine
from .streams import raise_descriptor_limit
from .ways import BRISK, Way, Ways, open_ways

TRACE = ROOT.parent / "shared" / "traces" / "azure-llm-2023-conv.csv"
SPEED = 10.0
WHOLE_SECONDS = 360.0
_SHORT_OUTPUT = 40  # tokens: the longest answer of the trace takes a minute
_BYTES_PER_TOKEN = 4
_TEXT = "The warranty of the blue kettle covers its lid, its cord and its whistle. " * 1000
_MOST_PROMPT_TOKENS = len(_TEXT) // _BYTES_PER_TOKEN


@dataclass(frozen=True, slots=True)
class Found:
    """Milliseconds; of chunks from the engine to the client, of first chunks from when due."""

    requests: int
    failures: int
    chunks_per_second: float
    chunk_p50: float
    chunk_p99: float
    first_p99: float
    lateness_ms: float  # the load generator's own

    def figures(self) -> list[float]:
        """In the order of ``_FIGURES``."""
        return [
            self.failures,
            self.chunks_per_second,
            self.chunk_p50,
            self.chunk_p99,
            self.first_p99,
        ]

    def less(self, direct: Found) -> Found:
        """What is added to going straight to the engine."""
        return replace(
            self,
            chunk_p50=self.chunk_p50 - direct.chunk_p50,
            chunk_p99=self.chunk_p99 - direct.chunk_p99,
            first_p99=self.first_p99 - direct.first_p99,
        )


_FIGURES = (
    ("failures", "", 0.0),
    ("chunks a second", "1/s", None),
    ("added per chunk, p50", "ms", None),
    ("added per chunk, p99", "ms", None),
    ("added to the first chunk, p99", "ms", None),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.trace", description=__doc__)
    parser.add_argument("--seconds", type=float, default=WHOLE_SECONDS)
    machine = this_machine()
    report("trace", run(parser.parse_args(argv).seconds), machine=machine)


def missing() -> str:
    return "" if TRACE.exists() else f"the trace is not there: {TRACE}"


def measure(*, short: bool) -> list[Row]:
    return run(4.0, most_output=_SHORT_OUTPUT) if short else run(60.0)


def run(seconds: float, *, most_output: int = CONTEXT_TOKENS) -> list[Row]:
    raise_descriptor_limit()
    asks = [
        replace(ask, output_tokens=min(ask.output_tokens, most_output))
        for ask in window(read(TRACE), speed=SPEED, seconds=seconds)
    ]
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name, ExitStack() as stack:
        ways = open_ways(stack, Path(name))
        found = {way.name: uvloop.run(_replay(way, asks)) for way in ways.all()}
    return trace_rows(ways, found, seconds)


def trace_rows(ways: Ways, found: dict[str, Found], seconds: float) -> list[Row]:
    direct = found[ways.direct.name]
    ours = found[ways.gateway.name].less(direct)
    reference = ways.nginx.name if ways.nginx else None
    nginx = found[reference].less(direct) if reference else None
    theirs = [None] * len(_FIGURES) if nginx is None else nginx.figures()
    what = f"{seconds:.0f} s of the trace at {SPEED:.0f} x"
    rows = rows_beside(what, _FIGURES, ours.figures(), theirs, reference=reference)
    return [
        Row(name=f"{what}, requests", unit="", value=ours.requests),
        Row(name=f"{what}, straight to the engine, chunk p99", unit="ms", value=direct.chunk_p99),
        Row(name=f"{what}, load generator late by at most", unit="ms", value=ours.lateness_ms),
        *rows,
    ]


async def _replay(way: Way, asks: Sequence[Ask]) -> Found:
    done = await replay(way.address, asks, lambda ask: payload(way, ask))
    good = [reply for reply in done.replies if reply.is_success]
    first = [reply.first_seconds * 1000 for reply in good]
    return Found(
        requests=len(done.replies),
        failures=len(done.replies) - len(good),
        chunks_per_second=len(done.delays.values) / done.seconds,
        chunk_p50=done.delays.quantile(0.5),
        chunk_p99=done.delays.quantile(0.99),
        first_p99=quantiles(first, n=100)[98] if len(first) > 1 else 0.0,
        lateness_ms=done.lateness * 1000,
    )


def payload(way: Way, ask: Ask) -> bytes:
    """A streamed chat with a prompt and an answer as long as the trace says."""
    tokens = min(ask.prompt_tokens, _MOST_PROMPT_TOKENS)
    prompt = _TEXT[: tokens * _BYTES_PER_TOKEN]
    return way.chat(model=BRISK, tokens=ask.output_tokens, stream=True, prompt=prompt)


if __name__ == "__main__":
    main()
