"""The ways to one engine: straight, through the gateway, through nginx, through LiteLLM."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .backing import backing
from .engines import Simulator, adapter_write, simulator
from .gateways import CONTEXT_TOKENS, gateways, publish
from .litellm import proxy as litellm
from .load.client import request_bytes
from .nginx import MISSING, find, free_port, plain_proxy

# Models: one answers at once, the others at a pace. Tokens of the last two are the instants at
# which they left the engine, so that whoever gets them knows how long they took.
FAST, PACED, SLOW, BRISK = "fast", "paced", "slow", "brisk"
TOKEN_MS = {PACED: 20.0, SLOW: 1000.0, BRISK: 50.0}
STAMPED = frozenset({SLOW, BRISK})
MODELS = (FAST, PACED, SLOW, BRISK)
LITELLM_SHARE = 1 / 16  # it takes some twenty milliseconds of CPU per request
SLOTS = 8192
PROMPT = "What does the warranty of the blue kettle cover? " * 8
CHAT_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Way:
    """An address, the key it asks for, and the processes that are paid on it."""

    name: str
    address: str
    key: str
    pids: tuple[int, ...]
    share: float = 1.0  # of the load that it can take in a run of bearable length

    def chat(self, *, model: str, tokens: int, stream: bool, prompt: str = PROMPT) -> bytes:
        """A request for an answer of exactly so many tokens."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "stream": stream,
        }
        return request_bytes(CHAT_PATH, json.dumps(body).encode(), key=self.key)


@dataclass(frozen=True, slots=True)
class Ways:
    direct: Way
    gateway: Way
    nginx: Way | None  # where it is installed
    litellm: Way | None = None  # where it can be installed, and only when asked for

    def all(self) -> list[Way]:
        """Those that can take the pressure of the others."""
        return [way for way in (self.direct, self.gateway, self.nginx) if way is not None]

    def paid(self) -> list[Way]:
        """Those whose cost is looked at."""
        return [way for way in (self.gateway, self.nginx, self.litellm) if way is not None]


def open_ways(
    stack: ExitStack, folder: Path, *, with_litellm: bool = False, processes: int = 1
) -> Ways:
    """Start everything; ``stack`` stops it. One process each of gateway (or as many as
    ``processes``), nginx and engine.
    """
    back = stack.enter_context(backing(folder))
    engine = stack.enter_context(
        simulator(
            folder / "engine",
            replica="r1",
            engine_key=back.secret("TESSERA_ENGINE_KEY"),
            arguments=("--max-num-seqs", str(SLOTS), "--max-model-len", str(CONTEXT_TOKENS)),
            port=free_port(),
        )
    )
    for seed, model in enumerate(MODELS):
        engine.load(model, adapter_write(folder / f"adapter-{model}", seed=seed))
    for model, token_ms in TOKEN_MS.items():
        pace = {"kind": "slow", "model": model, "token_ms": token_ms, "times": 0}
        engine.call("POST", "/sim/faults", pace | {"stamps": model in STAMPED})
    publish(back, [engine], models=MODELS, slots=SLOTS)
    ours = stack.enter_context(gateways(back, processes=processes))
    direct = Way("engine simulator", engine.address, engine.key, (engine.pid,))
    gateway = Way("gateway", ours.address, back.tenant.key, ours.pids)
    nginx = _nginx(stack, folder, engine)
    litellm = _litellm(stack, folder, engine) if with_litellm else None
    return Ways(direct, gateway, nginx, litellm)


def _nginx(stack: ExitStack, folder: Path, engine: Simulator) -> Way | None:
    binary = find()
    if binary is None:
        print(MISSING, file=sys.stderr)
        return None
    proxy = stack.enter_context(
        plain_proxy(binary, folder=folder / "nginx", engine_socket=engine.socket)
    )
    return Way(proxy.version, proxy.address, engine.key, proxy.pids)


def _litellm(stack: ExitStack, folder: Path, engine: Simulator) -> Way | None:
    try:
        home = litellm.install()
    except litellm.NotInstalled as error:
        print(f"LiteLLM cannot be installed here ({error}), so it is left out.", file=sys.stderr)
        return None
    proxy = stack.enter_context(
        litellm.proxy(
            home,
            folder=folder / "litellm",
            engine=engine.url,
            engine_key=engine.key,
            models=MODELS,
        )
    )
    return Way(proxy.version, proxy.address, litellm.KEY, proxy.pids, LITELLM_SHARE)
