"""A real engine as a test starts it, and adapters for the tiny model, written without any library."""

from __future__ import annotations

import array
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from serving.agent.launch import current_incarnation, socket_path

READY_SECONDS = 480.0
TINY_LAYERS = 2
TINY_SHAPES = {"q_proj": (128, 128), "k_proj": (128, 64), "v_proj": (128, 64), "o_proj": (128, 128)}
RANK = 8


@dataclass
class EngineProcess:
    """One engine under ``serving.agent launch``; ``start`` again after ``kill`` is another incarnation."""

    python: Path
    model: Path
    run_dir: Path
    base: str = "tiny"
    key: str = "engine-test-key"
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def incarnation(self) -> str:
        return current_incarnation(self.run_dir)

    @property
    def address(self) -> str:
        return f"unix:{socket_path(self.run_dir, self.incarnation)}"

    @property
    def log(self) -> Path:
        return self.run_dir / "engine.log"

    def start(self) -> None:
        """Start without waiting. The log is kept across starts."""
        environment = {
            **os.environ,
            "VLLM_API_KEY": self.key,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        launch = [sys.executable, "-m", "serving.agent", "launch", "--run-dir", str(self.run_dir)]
        self.run_dir.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*launch, "--", *self._command()],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _command(self) -> list[str]:
        return [
            str(self.python), "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(self.model), "--served-model-name", self.base,
            "--uds", str(socket_path(self.run_dir, "{incarnation}")),
            "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "16",
            "--enable-lora", "--max-loras", "4", "--max-cpu-loras", "16", "--max-lora-rank", "16",
            "--enable-force-include-usage", "--enable-prompt-tokens-details",
            "--disable-uvicorn-access-log", *self.options,
        ]  # fmt: skip

    def client(self, seconds: float = 60.0) -> httpx2.Client:
        transport = httpx2.HTTPTransport(uds=self.address.removeprefix("unix:"))
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx2.Client(
            base_url="http://engine", transport=transport, headers=headers, timeout=seconds
        )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, f"The engine ended: {self.log.read_text()[-2000:]}"
            if self.incarnation and self._is_healthy():
                return
            time.sleep(0.25)
        raise TimeoutError(f"The engine is not ready: {self.log.read_text()[-2000:]}")

    def _is_healthy(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:  # httpx2 leaks a socket that cannot connect
            if probe.connect_ex(self.address.removeprefix("unix:")):
                return False
        try:
            with self.client(seconds=5) as client:
                return client.get("/health").status_code == 200
        except httpx2.HTTPError:
            return False

    def kill(self) -> None:
        """Kill -9 of all its processes, as the supervisor does when one of them dies."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def complete(self, prompt: str, **fields: Any) -> dict[str, Any]:
        body = {"model": self.base, "prompt": prompt, "max_tokens": 8, "temperature": 0, **fields}
        with self.client() as client:
            response = client.post("/v1/completions", json=body)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer


def write_tiny_adapter(folder: Path, *, seed: int, scale: float = 0.5) -> Path:
    """A LoRA adapter for the tiny model; with ``scale`` 0 it changes nothing."""
    dice = random.Random(seed)
    tensors = {}
    for layer in range(TINY_LAYERS):
        for module, (inputs, outputs) in TINY_SHAPES.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = (RANK, inputs, 0.2, dice)
            tensors[f"{name}.lora_B.weight"] = (outputs, RANK, scale, dice)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(_safetensors(tensors))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": RANK,
        "lora_alpha": 16,
        "target_modules": list(TINY_SHAPES),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _safetensors(tensors: dict[str, tuple[int, int, float, random.Random]]) -> bytes:
    header: dict[str, object] = {}
    data = b""
    for name, (rows, columns, scale, dice) in tensors.items():
        values = array.array("f", (dice.gauss(0, 1) * scale for _ in range(rows * columns)))
        start = len(data)
        data += values.tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": [rows, columns],
            "data_offsets": [start, len(data)],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data
