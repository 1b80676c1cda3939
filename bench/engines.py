"""Engine simulators for benchmarks and fault tests, each on a socket of its own, and adapters for
them.
"""

from __future__ import annotations

import json
import random
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from serving.contracts import engine_api_key

from .backing import ROOT
from .processes import running

BASE = "simulated-base"
_RANK = 8
_WIDTH = 16
_LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


@dataclass(frozen=True, slots=True)
class Simulator:
    replica: str
    socket: Path
    key: str
    pid: int
    journal: Path | None
    port: int = 0  # where it listens on loopback, too; 0: nowhere

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    @property
    def url(self) -> str:
        """For a reference that speaks no Unix sockets."""
        return f"http://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One request to a control route; its status and its decoded or plain text."""
        connection = _UnixConnection(self.socket)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"authorization": f"Bearer {self.key}"})
            answer = connection.getresponse()
            raw = answer.read()
            is_json = answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(raw) if is_json else raw.decode()
        finally:
            connection.close()

    def load(self, name: str, folder: Path) -> None:
        status, answer = self.call(
            "POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)}
        )
        if status != 200:
            raise RuntimeError(f"The simulator refused adapter {name}: {answer}")


@contextmanager
def simulator(
    folder: Path,
    *,
    replica: str,
    engine_key: bytes,
    arguments: Sequence[str] = (),
    port: int = 0,
) -> Iterator[Simulator]:
    """A simulator in ``folder`` with vLLM's options as the product starts it, and ``arguments``."""
    folder.mkdir()
    path = folder / "engine.sock"
    key = engine_api_key(engine_key, replica)
    journal = folder / "journal.jsonl" if "--journal" in arguments else None
    argv = [sys.executable, *simulator_arguments(path, key=key), *arguments]
    argv += ["--also-port", str(port)] if port else []
    with running(argv, log=folder / "log", ready=lambda: _answers(path), cwd=ROOT) as process:
        yield Simulator(replica, path, key, process.pid, journal, port)


def simulator_arguments(path: Path, *, key: str) -> list[str]:
    return [
        "-m",
        "bench.enginesim",
        *("--uds", str(path)),
        *("--served-model-name", BASE),
        *("--api-key", key),
        "--enable-force-include-usage",
        "--enable-prompt-tokens-details",
    ]


def adapter_write(folder: Path, *, seed: int, is_zero: bool = False) -> Path:
    """A LoRA adapter of one layer in bfloat16; other seeds are other weights."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": _RANK, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    size = _RANK * _WIDTH * 2
    values = random.Random(seed)
    a = values.randbytes(size)
    b = bytes(size) if is_zero else values.randbytes(size)
    header = json.dumps(
        {
            f"{_LAYER}.lora_A.weight": _tensor([_RANK, _WIDTH], 0, size),
            f"{_LAYER}.lora_B.weight": _tensor([_WIDTH, _RANK], size, 2 * size),
        }
    ).encode()
    (folder / "adapter_model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + a + b
    )
    return folder


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _tensor(shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
