"""Adapters and hostile files, made by the tests themselves."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BASE = "tiny-llama"
MODULES = {"model.layers.0.self_attn.q_proj": (8, 16), "model.layers.0.self_attn.v_proj": (4, 16)}
RANK = 2
GOOD_CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": BASE,
    "r": RANK,
    "lora_alpha": 4,
    "target_modules": ["q_proj", "v_proj"],
}


def good_tensors() -> dict[str, tuple[str, list[int], bytes]]:
    """Name to dtype, shape and bytes of a small adapter that has an effect."""
    tensors = {}
    for module, (out_features, in_features) in MODULES.items():
        prefix = f"base_model.model.{module}"
        tensors[f"{prefix}.lora_A.weight"] = _floats([RANK, in_features], 0.5)
        tensors[f"{prefix}.lora_B.weight"] = _floats([out_features, RANK], 0.25)
    return tensors


def safetensors(tensors: Mapping[str, tuple[str, list[int], bytes]]) -> bytes:
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    return with_header(json.dumps(header), data)


def with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return struct.pack("<Q", len(text)) + text + data


def write_adapter(
    folder: Path, *, config: Mapping[str, Any] | bytes = GOOD_CONFIG, weights: bytes | None = None
) -> dict[str, Path]:
    files = {
        "adapter_config.json": config if isinstance(config, bytes) else json.dumps(config).encode(),
        "adapter_model.safetensors": safetensors(good_tensors()) if weights is None else weights,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in files}


def _floats(shape: list[int], value: float) -> tuple[str, list[int], bytes]:
    return "F32", shape, struct.pack("<f", value) * (shape[0] * shape[1])
