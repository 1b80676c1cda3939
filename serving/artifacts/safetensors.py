"""A reader of safetensors headers that believes nothing.

The format (safetensors documentation, "Format") is eight bytes with the length of a JSON header,
the header, and the tensors' bytes. The field's own library accepts duplicate names, of which it
uses the last, and hundreds of thousands of empty tensors; here each is refused by rule. Nothing of
the tensors themselves is read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, BinaryIO

from serving.artifacts.refusal import Refused, shown

HEADER_BYTES = 8 << 20
TENSORS = 50_000
DIMENSIONS = 3
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}

_METADATA = "__metadata__"
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,256}")


@dataclass(frozen=True, slots=True)
class Tensor:
    """``start`` and ``end`` count from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_tensors(file: BinaryIO, size: int) -> tuple[Tensor, ...]:
    """All tensors of a file of ``size`` bytes, in the order of their bytes.

    They cover the file from the header to its end without a gap or an overlap. Raises ``Refused``.
    """
    header, begin = _read_header(file, size)
    if len(header) > TENSORS:
        raise Refused("tensor_count", f"It names {len(header)} tensors; {TENSORS} are allowed.")
    found = [_tensor(name, entry, begin) for name, entry in header.items() if name != _METADATA]
    if not found:
        raise Refused("tensor_count", "It holds no tensor at all.")
    found.sort(key=lambda tensor: (tensor.start, tensor.end))
    _require_whole(found, begin, size)
    return tuple(found)


def parse_object(text: bytes) -> dict[str, Any]:
    """A JSON object without duplicate names, without NaN, and not nested out of bounds."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise Refused("json", "Its JSON is nested too deeply.") from None
    except ValueError as error:
        raise Refused("json", f"It is not valid JSON: {shown(error)}.") from None
    if not isinstance(value, dict):
        raise Refused("json", "Its JSON is not an object.")
    return value


def whole(value: object) -> bool:
    """Whether it is a number that counts something; JSON's ``true`` is not."""
    return type(value) is int and value >= 0


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    prefix = file.read(8)
    if len(prefix) < 8:
        raise Refused("header_length", "It is shorter than a safetensors header.")
    length = int.from_bytes(prefix, "little")
    if length > HEADER_BYTES:
        raise Refused(
            "header_length", f"Its header claims {length} bytes; {HEADER_BYTES} are allowed."
        )
    if 8 + length > size:
        raise Refused("header_length", f"Its header claims {length} bytes, more than the file has.")
    text = file.read(length)
    if len(text) != length:
        raise Refused("header_length", "It ends within its header.")
    # A tensor's entry has four colons and at most six commas. Counted before parsing, because eight
    # megabytes of small values would grow into hundreds.
    if text.count(b":") > 5 * TENSORS or text.count(b",") > 7 * TENSORS:
        raise Refused("tensor_count", f"It names too many tensors; {TENSORS} are allowed.")
    header = parse_object(text)
    metadata = header.get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise Refused("header_metadata", "Its metadata may map text to text only.")
    return header, 8 + length


def _tensor(name: str, entry: object, begin: int) -> Tensor:
    if not _NAME.fullmatch(name):
        raise Refused("tensor_name", f"The tensor name {shown(name)} is not allowed.")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Refused("tensor_entry", f"{name} must have dtype, shape and data_offsets, no more.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        allowed = ", ".join(DTYPE_BYTES)
        raise Refused("tensor_dtype", f"{name} is {shown(dtype)}; allowed are {allowed}.")
    if not isinstance(shape, list) or not 1 <= len(shape) <= DIMENSIONS:
        raise Refused("tensor_shape", f"{name} must have 1 to {DIMENSIONS} dimensions.")
    if not all(whole(each) and 0 < each < 1 << 40 for each in shape):
        raise Refused("tensor_shape", f"{name} has an empty or impossible dimension.")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(whole, offsets)):
        raise Refused("tensor_offsets", f"{name} must have two data offsets.")
    needed = DTYPE_BYTES[dtype]
    for each in shape:
        needed *= each
    if offsets[1] - offsets[0] != needed:
        raise Refused(
            "tensor_bytes",
            f"{name} needs {needed} bytes by its shape; its offsets say {offsets[1] - offsets[0]}.",
        )
    return Tensor(name, dtype, tuple(shape), begin + offsets[0], begin + offsets[1])


def _require_whole(tensors: list[Tensor], begin: int, size: int) -> None:
    expected = begin
    for tensor in tensors:
        if tensor.start < expected:
            raise Refused("tensor_overlap", f"{tensor.name} overlaps the tensor before it.")
        if tensor.start > expected:
            raise Refused("tensor_gap", f"There are bytes of no tensor before {tensor.name}.")
        expected = tensor.end
    if expected != size:
        raise Refused(
            "file_size", f"Its tensors end at byte {expected}; the file has {size} bytes."
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Refused("json_duplicate", f"{shown(twice)} stands twice in one JSON object.")
    return found


def _no_constant(name: str) -> None:
    raise Refused("json", f"{name} is not a JSON value.")
