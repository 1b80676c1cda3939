"""Command line: vLLM's own flags where they mean something here, and the simulator's."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    # vLLM's
    uds: Path | None
    host: str
    port: int
    model: str
    served_model_name: tuple[str, ...]
    api_key: str
    max_model_len: int
    max_num_seqs: int
    max_loras: int
    max_lora_rank: int
    block_size: int
    shutdown_timeout: float
    enable_force_include_usage: bool
    enable_prompt_tokens_details: bool
    # the simulator's own
    also_port: int
    journal: Path | None
    journal_progress: bool
    first_token_ms: float
    prefill_tokens_per_second: float
    token_ms: float
    tokens: int
    cache_blocks: int
    start_seconds: float


def parse(argv: Sequence[str] | None = None) -> tuple[Options, list[str]]:
    """The options, and the arguments that mean nothing here: a stand-in takes whatever the real one
    is given.
    """
    values, ignored = _parser().parse_known_args(argv)
    fields = vars(values)
    fields["served_model_name"] = tuple(values.served_model_name or [values.model])
    fields["api_key"] = values.api_key or os.environ.get("VLLM_API_KEY", "")
    return Options(**fields), ignored


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="enginesim", description=__doc__, allow_abbrev=False)
    vllm = parser.add_argument_group("as in vLLM")
    vllm.add_argument("--uds", type=Path, help="Unix socket; wins over host and port")
    vllm.add_argument("--host", default="127.0.0.1")
    vllm.add_argument("--port", type=int, default=8000)
    vllm.add_argument("--model", default="simulated", help="any name or folder; nothing is read")
    vllm.add_argument("--served-model-name", nargs="+", metavar="NAME")
    vllm.add_argument("--api-key", default="", help="or VLLM_API_KEY in the environment")
    vllm.add_argument("--max-model-len", type=int, default=8192)
    vllm.add_argument("--max-num-seqs", type=int, default=256)
    vllm.add_argument("--max-loras", type=int, default=8, help="adapters in one batch")
    vllm.add_argument("--max-lora-rank", type=int, default=16)
    vllm.add_argument("--block-size", type=int, default=16, help="tokens per cache block")
    vllm.add_argument(
        "--shutdown-timeout", type=float, default=0.0, help="seconds to finish in on SIGTERM"
    )
    vllm.add_argument("--enable-force-include-usage", action="store_true")
    vllm.add_argument("--enable-prompt-tokens-details", action="store_true")
    own = parser.add_argument_group("the simulator's own")
    own.add_argument("--also-port", type=int, default=0, help="on loopback, beside the socket")
    own.add_argument("--journal", type=Path, help="one JSON line before and after each request")
    own.add_argument("--journal-progress", action="store_true", help="and one before each token")
    own.add_argument("--first-token-ms", type=float, default=0.0)
    own.add_argument(
        "--prefill-tokens-per-second",
        type=float,
        default=0.0,
        help="how fast prompts are computed, one after the other, where not cached; 0: at once",
    )
    own.add_argument("--token-ms", type=float, default=0.0)
    own.add_argument(
        "--tokens", type=int, default=16, help="length of an answer that may end itself"
    )
    own.add_argument("--cache-blocks", type=int, default=65_536, help="prefix cache, in blocks")
    own.add_argument("--start-seconds", type=float, default=0.0, help="pretend to load for so long")
    return parser
