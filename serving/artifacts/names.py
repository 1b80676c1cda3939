"""Which files an artifact has. The gate is this list, not what a file looks like.

Nothing is ever stored under a name that a tenant chose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kernel.errors import Invalid

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
README = "README.md"

ADAPTER_FILES: Mapping[str, int] = {CONFIG: 64 << 10, WEIGHTS: 4 << 30, README: 1 << 20}
"""The files of an adapter, and how many bytes each may have."""

_REQUIRED = (CONFIG, WEIGHTS)
_MAY_HOLD_CODE = (".bin", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".py")


def files_check(sizes: Iterable[tuple[str, int]]) -> None:
    """Refuse unless these are the files of an adapter, each once and of a size that is taken."""
    given = list(sizes)
    for name, size_bytes in given:
        file_name_check(name)
        _size_check(name, size_bytes)
    names = [name for name, _ in given]
    if len(set(names)) != len(names):
        raise Invalid("A file is named twice.", param="files", rule="file_duplicate")
    for name in _REQUIRED:
        if name not in names:
            raise Invalid(f"An adapter needs {name}.", param="files", rule="file_missing")


def file_name_check(name: str) -> None:
    if name not in ADAPTER_FILES:
        raise Invalid(
            f"The file {ascii(name)[:60]} is not taken. {_way_out(name)}",
            param="files",
            rule="file_name",
        )


def _size_check(name: str, size_bytes: int) -> None:
    largest = ADAPTER_FILES[name]
    if not 1 <= size_bytes <= largest:
        raise Invalid(
            f"{name} must have 1 to {largest} bytes, not {size_bytes}.",
            param="files",
            rule="file_size",
        )


def _way_out(name: str) -> str:
    if name.lower().endswith(_MAY_HOLD_CODE):
        return "Such a file may hold code; save the weights as safetensors."
    return f"An adapter consists of {CONFIG}, {WEIGHTS} and, if you like, {README}."
