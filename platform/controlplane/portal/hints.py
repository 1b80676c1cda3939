"""The way out for a refused upload, rule by rule; what is wrong is said by the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise  # known to the type checker only

_SAVE_AGAIN = _(
    "Save the adapter again with save_pretrained(..., safe_serialization=True) and upload it anew."
)
_TRAIN_PLAINLY = _(
    "Train again with a plain LoraConfig: rank, alpha, target modules and dropout only."
)

# What the uploader says of a file that it looked at before sending; the keys are its own.
SENTENCES: Mapping[str, _StrPromise] = {
    "file_name": _(
        "Not part of an adapter. Leave it out: only adapter_config.json and "
        "adapter_model.safetensors are needed."
    ),
    "file_name_pickle": _(
        "Pickled weights can run code. Save again with safe_serialization=True and choose the "
        ".safetensors file."
    ),
    "file_name_archive": _("Unpack the archive and choose the files in it."),
    "file_name_weights": _(
        "These are full weights. Choose the adapter's own file, adapter_model.safetensors."
    ),
    "file_missing": _("Missing. PEFT's save_pretrained() writes it; choose it too."),
    "config_size": _("Larger than 1 MB. Choose the small JSON file that PEFT wrote."),
    "json": _("Not a JSON object. Choose the file that PEFT wrote."),
    "peft_type": _("peft_type is {value}. Only LoRA adapters are served; train with LoraConfig."),
    "base_model": _("Trained on “{value}”, which is not the base model chosen above."),
    "rank": _("r is {value}. Set it to a whole number in LoraConfig, for example r=16."),
    "target_modules": _("target_modules is not a list. Name the modules, such as q_proj, v_proj."),
    "config_field": _("{value} is set, and whole modules are not served. Train without it."),
    "header_length": _("Damaged, or no safetensors file. Save the adapter again."),
    "file_size": _("Cut short, or bytes too many. Copy or save it again."),
}

_HINTS: Mapping[str, _StrPromise] = {
    "file_missing": _(
        "Choose both files that PEFT writes: adapter_config.json and adapter_model.safetensors."
    ),
    "base_model": _("Upload it again and choose the base model it was trained on."),
    "peft_type": _TRAIN_PLAINLY,
    "config_bias": _TRAIN_PLAINLY,
    "config_field": _TRAIN_PLAINLY,
    "lora_alpha": _TRAIN_PLAINLY,
    "rank": _("Train again with a smaller r; 8 to 32 is plenty for most desks."),
    "target_modules": _(
        "Name the modules in a list, such as q_proj and v_proj; patterns are not taken."
    ),
    "tensor_module": _(
        "The adapter is for another architecture. Choose the base model it was trained on."
    ),
    "tensor_shape": _(
        "The adapter is for a base model of another size. Choose the one it was trained on."
    ),
    "no_effect": _(
        "Train longer or with a higher learning rate: as it is, answers would be the base model's."
    ),
    "not_finite": _("Training diverged. Lower the learning rate, or train in float32 or bfloat16."),
    **dict.fromkeys(
        (
            "json",
            "json_duplicate",
            "header_length",
            "header_metadata",
            "file_size",
            "tensor_count",
            "tensor_name",
            "tensor_entry",
            "tensor_dtype",
            "tensor_offsets",
            "tensor_overlap",
            "tensor_gap",
            "tensor_pair",
        ),
        _SAVE_AGAIN,
    ),
}


def hint_for(rule: str) -> str | _StrPromise:
    """The way out for a rule; empty where the reason has to do."""
    return _HINTS.get(rule, "")
