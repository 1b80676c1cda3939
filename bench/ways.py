"""Three ways to one engine: straight, through the gateway, through nginx."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .backing import backing
from .engines import adapter_write, simulator
from .gateways import gateways, publish
from .load.client import request_bytes
from .nginx import MISSING, find, plain_proxy

FAST, PACED = "fast", "paced"  # models: one answers at once, one at the pace of an engine
TOKEN_MS = 20.0
SLOTS = 4096
PROMPT = "What does the warranty of the blue kettle cover? " * 8
CHAT_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Way:
    """An address, the key it asks for, and the processes that are paid on it."""

    name: str
    address: str
    key: str
    pids: tuple[int, ...]

    def chat(self, *, model: str, tokens: int, stream: bool) -> bytes:
        """A request for an answer of exactly so many tokens."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": PROMPT}],
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

    def all(self) -> list[Way]:
        return [way for way in (self.direct, self.gateway, self.nginx) if way is not None]


def open_ways(stack: ExitStack, folder: Path) -> Ways:
    """Start everything; ``stack`` stops it. One process each of gateway, nginx and engine."""
    back = stack.enter_context(backing(folder))
    engine = stack.enter_context(
        simulator(folder / "engine", replica="r1", engine_key=back.secret("TESSERA_ENGINE_KEY"))
    )
    for seed, model in enumerate((FAST, PACED)):
        engine.load(model, adapter_write(folder / f"adapter-{model}", seed=seed))
    slow = {"kind": "slow", "model": PACED, "token_ms": TOKEN_MS, "times": 0}
    engine.call("POST", "/sim/faults", slow)
    publish(back, [engine], models=[FAST, PACED], slots=SLOTS)
    ours = stack.enter_context(gateways(back, processes=1))
    direct = Way("engine simulator", engine.address, engine.key, (engine.pid,))
    gateway = Way("gateway", ours.address, back.tenant.key, ours.pids)
    binary = find()
    if binary is None:
        print(MISSING, file=sys.stderr)
        return Ways(direct, gateway, None)
    proxy = stack.enter_context(
        plain_proxy(binary, folder=folder / "nginx", engine_socket=engine.socket)
    )
    return Ways(direct, gateway, Way(proxy.version, proxy.address, engine.key, proxy.pids))
