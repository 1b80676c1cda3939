"""The catalogue of base models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kernel.errors import Invalid, NotFound
from serving.artifacts.digest import artifact_digest
from serving.artifacts.refusal import Refused
from serving.artifacts.safetensors import read_tensors
from serving.models import BaseModel
from tenants.access import Caller, Permission
from tenants.scope import platform_scope
from tenants.services import audit_record

LARGEST_CONTEXT_TOKENS = 2048
DEFAULT_OUTPUT_TOKENS = 256

# The linear modules of the Llama family and its kin that engines take adapters for.
ADAPTABLE = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})


def base_model_register(  # noqa: PLR0913 - what a base model consists of
    folder: Path,
    *,
    slug: str,
    name: str,
    caller: Caller,
    served_name: str = "",
    context_tokens: int = LARGEST_CONTEXT_TOKENS,
    default_output_tokens: int = DEFAULT_OUTPUT_TOKENS,
) -> BaseModel:
    """Offer the model in ``folder``, whose files every engine's machine has at the same place.

    Registering the same again changes nothing. A slug keeps its bytes: adapters were made for them.
    """
    caller.require(Permission.OPERATE)
    config = _config(folder)
    longest = int(config.get("max_position_embeddings") or context_tokens)
    values = {
        "name": name,
        "served_name": served_name or slug,
        "folder": str(folder),
        "digest": _folder_digest(folder),
        "config": config,
        "modules": _modules(folder),
        "context_tokens": min(context_tokens, longest),
        "default_output_tokens": default_output_tokens,
    }
    with platform_scope():
        before = BaseModel.objects.select_for_update().filter(slug=slug).first()
        if before is None:
            made = BaseModel.objects.create(slug=slug, **values)
            _audit(caller, "base_model.register", made)
            return made
        if before.digest != values["digest"]:
            raise Invalid(
                f"{slug} is registered with other bytes. Register the new ones under a new slug.",
                rule="base_model_digest",
            )
        if any(getattr(before, field) != value for field, value in values.items()):
            BaseModel.objects.filter(slug=slug).update(**values)
            _audit(caller, "base_model.change", before)
        return before


def base_model_offer(slug: str, *, caller: Caller) -> None:
    """New models may be based on it."""
    _set_enabled(slug, caller, "base_model.offer", enabled=True)


def base_model_withdraw(slug: str, *, caller: Caller) -> None:
    """No new model may be based on it; what is deployed goes on."""
    _set_enabled(slug, caller, "base_model.withdraw", enabled=False)


def _set_enabled(slug: str, caller: Caller, verb: str, *, enabled: bool) -> None:
    caller.require(Permission.OPERATE)
    with platform_scope():
        base = BaseModel.objects.select_for_update().filter(slug=slug).first()
        if base is None:
            raise NotFound("There is no base model by that name.")
        if base.enabled is not enabled:
            BaseModel.objects.filter(slug=slug).update(enabled=enabled)
            _audit(caller, verb, base)


def _audit(caller: Caller, verb: str, base: BaseModel) -> None:
    audit_record(
        caller,
        verb,
        target_type="basemodel",
        target_id=base.id,
        organization_id=None,
        detail={"slug": base.slug},
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise Invalid(
            f"{folder} has no readable config.json; give the folder of a Hugging Face model.",
            rule="base_model_folder",
        ) from error
    return config


def _modules(folder: Path) -> dict[str, list[int]]:
    """Each adaptable module and its shape, from the headers of the weights themselves."""
    modules: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                tensors = read_tensors(file, path.stat().st_size)
        except Refused as refusal:
            raise Invalid(f"{path.name}: {refusal.reason}", rule=refusal.rule) from refusal
        for tensor in tensors:
            module, _, kind = tensor.name.rpartition(".")
            if kind == "weight" and module.rpartition(".")[2] in ADAPTABLE:
                modules[module] = list(tensor.shape)
    if not modules:
        raise Invalid(
            f"{folder} has no safetensors files with modules that an adapter may change.",
            rule="base_model_modules",
        )
    return modules


def _folder_digest(folder: Path) -> str:
    return artifact_digest(_digests(folder))


def _digests(folder: Path) -> Mapping[str, str]:
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
