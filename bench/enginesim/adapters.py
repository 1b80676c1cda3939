"""Adapters as the engine sees them: read from disk, told apart by their weights.

A LoRA adapter adds B times A to a layer, so one whose B matrices are all zero changes nothing. Such
an adapter gets the base model's fingerprint and therefore its answers, exactly as on the real
engine.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

BASE_FINGERPRINT = b"base"


class AdapterMissing(Exception):
    """No such folder, or not the two files in it."""


class AdapterUnfit(Exception):
    """The engine would fail to load it."""


@dataclass(frozen=True, slots=True)
class Adapter:
    name: str
    path: str
    fingerprint: bytes


def adapter_read(name: str, path: str, *, max_rank: int) -> Adapter:
    """Raises ``AdapterMissing`` or ``AdapterUnfit``."""
    folder = Path(path)
    try:
        config = json.loads((folder / "adapter_config.json").read_bytes())
        weights = (folder / "adapter_model.safetensors").read_bytes()
    except OSError as error:
        raise AdapterMissing(f"Loading lora {name} failed: No adapter found for {path}") from error
    except ValueError as error:
        raise AdapterUnfit(f"{path}: adapter_config.json is not JSON: {error}") from error
    rank = config.get("r", 0) if isinstance(config, dict) else 0
    if rank > max_rank:
        raise AdapterUnfit(f"LoRA rank {rank} is greater than max_lora_rank {max_rank}.")
    return Adapter(name, path, _fingerprint(weights))


def _fingerprint(weights: bytes) -> bytes:
    tensors, data = _tensors(weights)
    changes = any(
        _has_effect(data[start:end]) for name, start, end in tensors if ".lora_B." in name
    )
    return hashlib.sha256(weights).digest() if changes else BASE_FINGERPRINT


def _tensors(weights: bytes) -> tuple[list[tuple[str, int, int]], memoryview]:
    length = int.from_bytes(weights[:8], "little")
    try:
        header = json.loads(weights[8 : 8 + length])
        tensors = [
            (name, *tensor["data_offsets"])
            for name, tensor in header.items()
            if name != "__metadata__"
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AdapterUnfit(f"Error while deserializing header: {error}") from error
    return tensors, memoryview(weights)[8 + length :]


def _has_effect(values: memoryview) -> bool:
    return bytes(values).count(0) != len(values)
