"""What an ``adapter_config.json`` may say: data about the tensors, never a place to load from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.artifacts.refusal import Refused, shown
from serving.artifacts.safetensors import parse_object, whole

CONFIG_BYTES = 64 << 10
TARGET_MODULES = 64
TARGET_LENGTH = 64

_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?", re.ASCII)
_MODULE = re.compile(r"[A-Za-z0-9_.]+", re.ASCII)

# Said about how the adapter was trained or is scaled; without effect on what is loaded from where.
_FREE = frozenset(
    {
        "peft_type",
        "task_type",
        "base_model_name_or_path",
        "revision",
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "bias",
        "inference_mode",
        "init_lora_weights",
        "use_rslora",
        "peft_version",
        "qalora_group_size",
        "megatron_core",
        "runtime_config",
    }
)
_EMPTY: tuple[object, ...] = (None, False, "", [], {})


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    rank: int
    target_modules: frozenset[str]


def read_config(text: bytes, *, base: str, max_rank: int) -> AdapterConfig:
    """Check a config against the chosen base's short name. Raises ``Refused``."""
    if len(text) > CONFIG_BYTES:
        raise Refused("config_size", f"adapter_config.json is larger than {CONFIG_BYTES} bytes.")
    config = parse_object(text)
    if config.get("peft_type") != "LORA":
        kind = shown(config.get("peft_type"))
        raise Refused("peft_type", f"peft_type is {kind}; only LORA adapters can be served.")
    _require_base(config.get("base_model_name_or_path"), base)
    _require_plain(config)
    return AdapterConfig(
        rank=_rank(config.get("r"), max_rank), target_modules=_targets(config.get("target_modules"))
    )


def _require_base(named: object, base: str) -> None:
    """The chosen base by its short name, or by the name it is published under."""
    if (
        isinstance(named, str)
        and len(named) <= 200
        and _NAME.fullmatch(named)
        and named.rpartition("/")[2].lower() == base
    ):
        return
    raise Refused(
        "base_model",
        f"base_model_name_or_path is {shown(named)}, but the chosen base is {base!r}. "
        "Choose the base that the adapter was trained on.",
    )


def _require_plain(config: Mapping[str, Any]) -> None:
    if config.get("bias", "none") != "none":
        raise Refused("config_bias", "bias must be 'none': trained biases are not served.")
    alpha: Any = config.get("lora_alpha")
    if not _is_number(alpha) or not 0 < alpha < 1e6:
        raise Refused("lora_alpha", f"lora_alpha is {shown(alpha)}; it must be a positive number.")
    for name, value in config.items():
        if name not in _FREE and value not in _EMPTY:
            raise Refused(
                "config_field",
                f"{shown(name)} is set in adapter_config.json, and adapters that use it are not "
                "served. Train without it, or leave it empty.",
            )


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and math.isfinite(value)


def _rank(rank: object, max_rank: int) -> int:
    if not whole(rank) or not isinstance(rank, int) or not 1 <= rank <= max_rank:
        raise Refused(
            "rank", f"r is {shown(rank)}; it must be a whole number from 1 to {max_rank}."
        )
    return rank


def _targets(targets: object) -> frozenset[str]:
    if not isinstance(targets, list) or not 1 <= len(targets) <= TARGET_MODULES:
        raise Refused(
            "target_modules",
            f"target_modules must be a list of 1 to {TARGET_MODULES} names; a pattern is refused.",
        )
    for target in targets:
        if (
            not isinstance(target, str)
            or len(target) > TARGET_LENGTH
            or not _MODULE.fullmatch(target)
        ):
            raise Refused("target_modules", f"target_modules holds {shown(target)}, not a name.")
    return frozenset(targets)
