"""Engines on this machine: child processes of the supervisor, two parts for each replica.

``engine-<replica>`` becomes the engine, ``agent-<replica>`` looks after it. They are the
supervisor's children, not ours, so that a worker may be restarted without ending an engine.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

from kernel.errors import Unavailable
from serving.agent.launch import ENGINE_SOCKETS
from serving.contracts import engine_api_key
from serving.controller.runtime import Item, ItemState, ObservedItem, Plan, Role
from serving.controller.spec import EngineSpec
from serving.errors import EngineNotInstalled, RuntimeUnavailable
from serving.tokens import replica_token
from supervisor.control import ask
from supervisor.errors import SupervisorError
from supervisor.parts import Health, Part

WATCH_SECONDS = 1.0
_ENGINE_STOP_SECONDS = 30.0
_AGENT_STOP_SECONDS = 5.0

_STATES = {
    "waiting": ItemState.STARTING,
    "starting": ItemState.STARTING,
    "running": ItemState.RUNNING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """``engine_python`` is the Python of the engine's own environment; none means not installed.

    ``run`` is the folder for sockets and tokens, which may lie elsewhere than in ``home``.
    With ``simulator`` a stand-in runs in the engine's place.
    """

    supervisor_socket: Path
    home: Path
    run: Path
    control_url: str
    engine_secret: bytes
    engine_python: Path | None
    simulator: bool = False


class LocalRuntime:
    """Implements ``Runtime`` through the supervisor's control socket."""

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings

    def render(self, spec: EngineSpec) -> tuple[Item, ...]:
        return tuple(item for replica in spec.replicas for item in self._items(spec, replica))

    def observe(self) -> tuple[ObservedItem, ...]:
        return tuple(
            observed for part in self._ask({"op": "list"})["parts"] if (observed := _observed(part))
        )

    def difference(self, item: Item, there: ObservedItem) -> str:
        if there.content["spec_hash"] == Part.read(dict(item.content)).spec_hash:
            return ""
        return "it was started with another description"

    def apply(self, plan: Plan) -> None:
        for item in (*plan.create, *plan.update):
            if item.role is Role.AGENT:
                self._write_token(item.owner)
            self._ask({"op": "ensure", "part": dict(item.content)})
        for key in plan.delete:
            self._ask({"op": "remove", "name": key})

    def watch(self, stop: Event) -> Iterator[str]:
        """Looks once a second. While the supervisor is away nothing changes that we could tell."""
        before: dict[str, ObservedItem] = {}
        while not stop.wait(WATCH_SECONDS):
            try:
                now = {item.key: item for item in self.observe()}
            except Unavailable:
                continue
            changed = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
            yield from sorted({(now.get(key) or before[key]).owner for key in changed})
            before = now

    def _items(self, spec: EngineSpec, replica: str) -> tuple[Item, Item]:
        environment = {
            "VLLM_API_KEY": engine_api_key(self._settings.engine_secret, replica),
        }
        engine = Part(
            name=f"engine-{replica}",
            argv=self._engine_command(spec, replica),
            env=environment | _ENGINE_ENVIRONMENT | _kv_cache(spec) | self._compiled(),
            health=Health.http(f"unix:{self._run_dir(replica)}/{ENGINE_SOCKETS}", "/health"),
            stop_seconds=_ENGINE_STOP_SECONDS,
            all_for_one=True,
            quiet=True,
        )
        agent = Part(
            name=f"agent-{replica}",
            argv=self._agent_command(replica),
            env=environment,
            stop_seconds=_AGENT_STOP_SECONDS,
        )
        return _item(engine, replica, Role.ENGINE), _item(agent, replica, Role.AGENT)

    def _engine_command(self, spec: EngineSpec, replica: str) -> tuple[str, ...]:
        run_dir = self._run_dir(replica)
        socket = f"{run_dir}/{{incarnation}}.sock"
        command = (
            simulator_command(spec, socket, journal=run_dir / "simulator.jsonl")
            if self._settings.simulator
            else engine_command(self._engine_python(), spec, socket)
        )
        launch = (sys.executable, "-m", "serving.agent", "launch", "--run-dir", str(run_dir))
        return (*launch, "--", *command)

    def _agent_command(self, replica: str) -> tuple[str, ...]:
        run_dir = self._run_dir(replica)
        return (
            *(sys.executable, "-m", "serving.agent", "run"),
            *("--run-dir", str(run_dir)),
            *("--replica", replica),
            *("--control-url", self._settings.control_url),
            *("--token-file", str(run_dir / "token")),
            *("--cache", str(self._settings.home / "adapters")),
        )

    def _engine_python(self) -> Path:
        if self._settings.engine_python is None:
            raise EngineNotInstalled
        return self._settings.engine_python

    def _compiled(self) -> dict[str, str]:
        """What torch compiles at an engine's first token, some 15 s, is kept with the engine."""
        python = self._settings.engine_python
        if python is None:
            return {}
        return {"TORCHINDUCTOR_CACHE_DIR": str(python.parent.parent / "compiled")}

    def _run_dir(self, replica: str) -> Path:
        """Short, because a Unix socket's path ends at 107 bytes."""
        name = hashlib.sha256(replica.encode()).hexdigest()[:10]
        return self._settings.run / "e" / name

    def _write_token(self, replica: str) -> None:
        folder = self._run_dir(replica)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = folder / ".token-new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(replica_token(self._settings.engine_secret, replica))
        new.rename(folder / "token")

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return ask(self._settings.supervisor_socket, dict(request))
        except SupervisorError as error:
            raise RuntimeUnavailable(f"The supervisor refused: {error}") from error
        except (OSError, ValueError) as error:
            raise RuntimeUnavailable from error


# Metrics and key stay on; nothing is sent to or fetched from anybody.
_ENGINE_ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    # Once requests are drained the worker only has to go: seconds of patience gain nothing.
    "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": "1",
}


def engine_command(python: Path, spec: EngineSpec, socket: str) -> tuple[str, ...]:
    """vLLM on a Unix socket. Its key is in the environment, where ``ps`` does not show it.

    As a module, because the ``vllm`` command of the CPU build looks for a package of another name.
    """
    return (str(python), "-m", "vllm.entrypoints.openai.api_server", *engine_flags(spec, socket))


def simulator_command(spec: EngineSpec, socket: str, *, journal: Path) -> tuple[str, ...]:
    """The stand-in, for machines without the engine: it takes the engine's own flags."""
    own = ("--journal", str(journal))
    return (sys.executable, "-m", "bench.enginesim", *engine_flags(spec, socket), *own)


# Without them tools are an error unless one of them must be called. The parser reads the markup
# that most models write (<tool_call>); of a model that writes another, a call stays text.
TOOL_FLAGS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")


def engine_flags(spec: EngineSpec, socket: str) -> tuple[str, ...]:
    profile = spec.profile
    values = {
        "--model": spec.model_folder,
        "--served-model-name": spec.model_name,
        "--uds": socket,
        "--max-model-len": spec.context_tokens,
        "--max-num-seqs": profile.concurrency,
        "--max-loras": profile.adapters_per_batch,
        "--max-cpu-loras": profile.adapters_in_memory,
        "--max-lora-rank": profile.largest_rank,
        "--shutdown-timeout": 20,
    }
    switches = (
        "--enable-lora",
        "--enable-force-include-usage",
        "--enable-prompt-tokens-details",
        "--disable-uvicorn-access-log",
        *TOOL_FLAGS,
        *(("--enforce-eager",) if profile.eager else ()),
    )
    return (*(str(word) for pair in values.items() for word in pair), *switches)


def _kv_cache(spec: EngineSpec) -> dict[str, str]:
    return {"VLLM_CPU_KVCACHE_SPACE": str(spec.profile.kv_cache_gib)}


def _item(part: Part, replica: str, role: Role) -> Item:
    return Item(key=part.name, owner=replica, role=role, content=asdict(part))


def _observed(part: Mapping[str, Any]) -> ObservedItem | None:
    """A part as the supervisor lists it; nothing where it is not one of ours."""
    kind, _, replica = str(part["name"]).partition("-")
    if not part["ensured"] or kind not in {Role.ENGINE, Role.AGENT}:
        return None
    state = _STATES.get(part["state"], ItemState.STOPPED)
    return ObservedItem(
        key=part["name"],
        owner=replica,
        role=Role(kind),
        state=state,
        failures=part["failures"],
        detail=_detail(part["last_exit"]) if state is ItemState.STOPPED else "",
        content={"spec_hash": part["spec_hash"], "pid": part["pid"]},
    )


def _detail(last_exit: str | None) -> str:
    return f"The engine ended ({last_exit})." if last_exit else "The engine stopped."
