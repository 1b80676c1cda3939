"""Whether an adapter's tensors belong to its base, are numbers, and can have an effect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from serving.artifacts.adapter_config import AdapterConfig
from serving.artifacts.refusal import Refused, shown
from serving.artifacts.safetensors import Tensor

CHUNK_BYTES = 1 << 20  # a multiple of every element size

_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])(\.default)?\.weight")

# For an element of each type, from its most significant byte down: the bits of the exponent. An
# element is infinite or not a number exactly where all of them are set.
_EXPONENT = {"F32": (0x7F, 0x80), "BF16": (0x7F, 0x80), "F16": (0x7C,)}
_ELEMENT_BYTES = {"F32": 4, "BF16": 2, "F16": 2}


def require_fitting(
    tensors: Iterable[Tensor],
    *,
    config: AdapterConfig,
    modules: Mapping[str, Sequence[int]],
) -> None:
    """Every tensor is one half of a pair for a module of the base, in the shape the rank gives it.

    ``modules`` maps a linear module of the base to ``(out, in)``.
    """
    halves: dict[str, set[str]] = {}
    for tensor in tensors:
        module, half = _half(tensor.name)
        if module not in modules:
            raise Refused("tensor_module", f"The base model has no module {shown(module)}.")
        if not _is_target(module, config.target_modules):
            raise Refused("tensor_module", f"{shown(module)} is not among target_modules.")
        out_features, in_features = modules[module]
        expected = (config.rank, in_features) if half == "A" else (out_features, config.rank)
        if tensor.shape != expected:
            raise Refused(
                "tensor_shape", f"{tensor.name} is {tensor.shape}; the base needs {expected}."
            )
        halves.setdefault(module, set()).add(half)
    lone = next((module for module, found in halves.items() if found != {"A", "B"}), None)
    if lone is not None:
        raise Refused("tensor_pair", f"{lone} has only one of lora_A and lora_B.")


def require_numbers(file: BinaryIO, tensors: Iterable[Tensor]) -> None:
    """Every element is finite, and at least one B matrix is not all zero.

    With all of them zero the adapter would change nothing. Raises ``Refused``.
    """
    effect = False
    for tensor in tensors:
        counts = not effect and _half(tensor.name)[1] == "B"
        for chunk in _chunks(file, tensor):
            if _has_not_finite(chunk, tensor.dtype):
                raise Refused("not_finite", f"{tensor.name} holds a value that is not finite.")
            if counts and _has_nonzero(chunk, tensor.dtype):
                effect, counts = True, False
    if not effect:
        raise Refused(
            "no_effect",
            "Every lora_B matrix is zero, so the adapter changes nothing. "
            "Was it saved before it was trained?",
        )


def _half(name: str) -> tuple[str, str]:
    match = _TENSOR.fullmatch(name)
    if match is None:
        raise Refused("tensor_name", f"{shown(name)} is not the name of a LoRA tensor.")
    return match["module"], match["half"]


def _is_target(module: str, targets: frozenset[str]) -> bool:
    return any(module == target or module.endswith("." + target) for target in targets)


def _chunks(file: BinaryIO, tensor: Tensor) -> Iterator[bytes]:
    file.seek(tensor.start)
    left = tensor.end - tensor.start
    while left:
        chunk = file.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise Refused("file_size", "It ends within a tensor.")
        left -= len(chunk)
        yield chunk


def _has_not_finite(chunk: bytes, dtype: str) -> bool:
    """Byte columns instead of numbers: the whole chunk is looked at by C code."""
    width = _ELEMENT_BYTES[dtype]
    marks = -1
    for place, mask in enumerate(_EXPONENT[dtype]):
        column = chunk[width - 1 - place :: width].translate(_MARKS[mask])
        marks &= int.from_bytes(column, "little")
    return marks != 0


def _has_nonzero(chunk: bytes, dtype: str) -> bool:
    """Whether any element is neither 0 nor -0."""
    width = _ELEMENT_BYTES[dtype]
    top = chunk[width - 1 :: width].translate(None, b"\x00\x80")
    rest = (chunk[place::width] for place in range(width - 1))
    return bool(top) or any(column.strip(b"\x00") for column in rest)


_MARKS = {
    mask: bytes(1 if byte & mask == mask else 0 for byte in range(256))
    for mask in {mask for masks in _EXPONENT.values() for mask in masks}
}
