"""Every way in which a model file can be hostile or useless is refused by a named rule, quickly."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.artifacts.tests.adapters import (
    BASE,
    GOOD_CONFIG,
    MODULES,
    good_tensors,
    safetensors,
    with_header,
    write_adapter,
)
from serving.artifacts.validation import Verdict, validate_adapter

FIRST_B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
FIRST_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
PEAK = """
import json, resource, sys
from pathlib import Path
from serving.artifacts.validation import validate_adapter
question = json.load(sys.stdin)
files = {name: Path(path) for name, path in question.pop("files").items()}
verdict = validate_adapter(files, **question)
print(json.dumps([verdict.rule, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


def verdict_on(files: dict[str, Path]) -> Verdict:
    return validate_adapter(files, modules=MODULES, base=BASE, max_rank=64)


def entry(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def header(**entries: Any) -> str:
    return json.dumps(entries)


def test_a_trained_adapter_is_accepted_with_its_rank(tmp_path: Path) -> None:
    assert verdict_on(write_adapter(tmp_path)) == Verdict(accepted=True, rank=2)


def test_the_name_a_base_is_published_under_is_accepted(tmp_path: Path) -> None:
    files = write_adapter(
        tmp_path, config={**GOOD_CONFIG, "base_model_name_or_path": "Somebody/Tiny-Llama"}
    )
    assert verdict_on(files).accepted


class Marker:
    """Pickled, it would create a file wherever it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_under_a_good_name_is_refused_and_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    files = write_adapter(tmp_path, weights=pickle.dumps(Marker(marker)))
    assert not verdict_on(files).accepted
    assert not marker.exists()


HOSTILE_WEIGHTS: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "header_length"),
    "header of 2^63 bytes": (struct.pack("<Q", 1 << 63) + b"{}", "header_length"),
    "header of 101 MB": (struct.pack("<Q", 101 << 20) + b" " * (101 << 20), "header_length"),
    "header longer than the file": (struct.pack("<Q", 4096) + b"{}", "header_length"),
    "not JSON": (with_header("{'a': 1}"), "json"),
    "a list": (with_header("[]"), "json"),
    "NaN in the header": (with_header('{"a": NaN}'), "json"),
    "a number of 10,000 digits": (with_header('{"a": ' + "9" * 10_000 + "}"), "json"),
    "nested 100,000 deep": (with_header('{"a":' * 100_000 + "1" + "}" * 100_000), "json"),
    "metadata that is no text": (with_header('{"__metadata__": {"a": 1}}'), "header_metadata"),
    "no tensor": (with_header("{}"), "tensor_count"),
    "duplicate name": (
        with_header(f'{{"a": {json.dumps(entry())}, "a": {json.dumps(entry())}}}', bytes(4)),
        "json_duplicate",
    ),
    "duplicate key within a tensor": (
        with_header(
            '{"a": {"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}', bytes(4)
        ),
        "json_duplicate",
    ),
    "100,000 tensors": (
        with_header(json.dumps({f"t{n}": 0 for n in range(100_000)})),
        "tensor_count",
    ),
    "8 MB of small values": (with_header('{"a":[' + "1," * 4_000_000 + "1]}"), "tensor_count"),
    "8 MB of small lists": (with_header('{"a":[' + "[]" * 4_000_000 + "]}"), "json"),
    "a name with a slash": (with_header(header(**{"../a": entry()}), bytes(4)), "tensor_name"),
    "unknown field": (with_header(header(a={**entry(), "x": 1}), bytes(4)), "tensor_entry"),
    "dtype of integers": (with_header(header(a=entry("I64")), bytes(4)), "tensor_dtype"),
    "no dimension": (with_header(header(a=entry(shape=())), bytes(4)), "tensor_shape"),
    "empty dimension": (with_header(header(a=entry(shape=(0,), offsets=(0, 0)))), "tensor_shape"),
    "negative dimension": (with_header(header(a=entry(shape=(-1,))), bytes(4)), "tensor_shape"),
    "true as a dimension": (with_header(header(a=entry(shape=(True,))), bytes(4)), "tensor_shape"),
    "overflowing shape": (
        with_header(header(a=entry(shape=(1 << 39, 1 << 39))), bytes(4)),
        "tensor_bytes",
    ),
    "negative offset": (with_header(header(a=entry(offsets=(-4, 0))), bytes(4)), "tensor_offsets"),
    "overlap": (
        with_header(header(a=entry(offsets=(0, 4)), b=entry(offsets=(2, 6))), bytes(6)),
        "tensor_overlap",
    ),
    "hole": (
        with_header(header(a=entry(offsets=(0, 4)), b=entry(offsets=(8, 12))), bytes(12)),
        "tensor_gap",
    ),
    "trailing bytes": (with_header(header(a=entry()), bytes(5)), "file_size"),
    "cut short": (with_header(header(a=entry()), bytes(3)), "file_size"),
}


@pytest.mark.parametrize("name", HOSTILE_WEIGHTS)
def test_hostile_headers_are_refused_in_time_and_memory(name: str, tmp_path: Path) -> None:
    weights, rule = HOSTILE_WEIGHTS[name]
    files = write_adapter(tmp_path, weights=weights)
    question = {"modules": MODULES, "base": BASE, "max_rank": 64}
    started = time.process_time()
    child = subprocess.run(
        [sys.executable, "-c", PEAK],
        input=json.dumps({**question, "files": {k: str(v) for k, v in files.items()}}),
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    refused_by, peak_kib = json.loads(child.stdout)
    assert refused_by == rule
    assert peak_kib < 150 * 1024
    assert time.process_time() - started < 2


def test_a_sparse_file_of_a_terabyte_is_refused_at_once(tmp_path: Path) -> None:
    """Its header is honest; what it claims to hold is not in it."""
    size = 1 << 40
    shape = [1 << 38]
    files = write_adapter(
        tmp_path, weights=with_header(header(a=entry(shape=shape, offsets=(0, size))))
    )
    weights = files["adapter_model.safetensors"]
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size + size)
    assert verdict_on(files).rule == "tensor_name"


def changed(name: str, change: Callable[[tuple[str, list[int], bytes]], Any]) -> bytes:
    tensors = good_tensors()
    tensors[name] = change(tensors[name])
    return safetensors(tensors)


def replaced(old: str, new: str) -> bytes:
    return safetensors({name.replace(old, new): value for name, value in good_tensors().items()})


def first_value(bits: bytes, dtype: str = "F32") -> Callable[..., tuple[str, list[int], bytes]]:
    return lambda tensor: (
        dtype,
        tensor[1],
        bits + bytes(tensor[1][0] * tensor[1][1] * len(bits) - len(bits)),
    )


def only(name: str) -> bytes:
    return safetensors({name: good_tensors()[name]})


WRONG_TENSORS: dict[str, tuple[bytes, str]] = {
    "a module the base has not": (replaced("layers.0", "layers.9"), "tensor_module"),
    "not a LoRA tensor": (replaced("lora_A", "weights"), "tensor_name"),
    "shape of another base": (
        changed(FIRST_A, lambda t: ("F32", [2, 8], t[2][:64])),
        "tensor_shape",
    ),
    "one half only": (only(FIRST_B), "tensor_pair"),
    "infinite, F32": (changed(FIRST_A, first_value(struct.pack("<f", float("inf")))), "not_finite"),
    "not a number, F32": (
        changed(FIRST_A, first_value(struct.pack("<f", float("nan")))),
        "not_finite",
    ),
    "infinite, F16": (changed(FIRST_A, first_value(b"\x00\x7c", "F16")), "not_finite"),
    "infinite, BF16": (changed(FIRST_A, first_value(b"\x80\xff", "BF16")), "not_finite"),
    "all B zero": (
        safetensors(
            {
                name: (dtype, shape, bytes(len(data)) if "lora_B" in name else data)
                for name, (dtype, shape, data) in good_tensors().items()
            }
        ),
        "no_effect",
    ),
    "all B minus zero": (
        safetensors(
            {
                name: (
                    dtype,
                    shape,
                    data if "lora_A" in name else struct.pack("<f", -0.0) * (len(data) // 4),
                )
                for name, (dtype, shape, data) in good_tensors().items()
            }
        ),
        "no_effect",
    ),
}


@pytest.mark.parametrize("name", WRONG_TENSORS)
def test_tensors_that_do_not_fit_or_do_nothing_are_refused(name: str, tmp_path: Path) -> None:
    weights, rule = WRONG_TENSORS[name]
    assert verdict_on(write_adapter(tmp_path, weights=weights)).rule == rule


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [
        (struct.pack("<f", 3.4e38), "F32"),
        (b"\xff\x7b", "F16"),
        (b"\x7f\x7f", "BF16"),
    ],
)
def test_the_largest_finite_number_is_accepted(bits: bytes, dtype: str, tmp_path: Path) -> None:
    weights = changed(FIRST_A, first_value(bits, dtype))
    assert verdict_on(write_adapter(tmp_path, weights=weights)).accepted


WRONG_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "another base": ({"base_model_name_or_path": "other"}, "base_model"),
    "a path": ({"base_model_name_or_path": "../../etc"}, "base_model"),
    "an absolute path": ({"base_model_name_or_path": f"/{BASE}"}, "base_model"),
    "a URL": ({"base_model_name_or_path": f"https://example.com/{BASE}"}, "base_model"),
    "rank 4096": ({"r": 4096}, "rank"),
    "rank 0": ({"r": 0}, "rank"),
    "rank true": ({"r": True}, "rank"),
    "rank as text": ({"r": "8"}, "rank"),
    "alpha infinite": ({"lora_alpha": 1e999}, "json"),
    "alpha zero": ({"lora_alpha": 0}, "lora_alpha"),
    "auto_mapping": ({"auto_mapping": {"base_model_class": "x"}}, "config_field"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "config_field"),
    "DoRA": ({"use_dora": True}, "config_field"),
    "a field of tomorrow": ({"run_this": "rm"}, "config_field"),
    "bias": ({"bias": "all"}, "config_bias"),
    "a pattern for modules": ({"target_modules": "(a+)+$"}, "target_modules"),
    "65 modules": ({"target_modules": ["a"] * 65}, "target_modules"),
    "a long module name": ({"target_modules": ["a" * 65]}, "target_modules"),
    "prompt tuning": ({"peft_type": "PROMPT_TUNING"}, "peft_type"),
}


@pytest.mark.parametrize("name", WRONG_CONFIGS)
def test_configs_that_break_a_rule_are_refused(name: str, tmp_path: Path) -> None:
    change, rule = WRONG_CONFIGS[name]
    assert verdict_on(write_adapter(tmp_path, config={**GOOD_CONFIG, **change})).rule == rule


def test_what_peft_writes_by_default_is_accepted(tmp_path: Path) -> None:
    config = {
        **GOOD_CONFIG,
        **dict.fromkeys(["auto_mapping", "eva_config", "layers_pattern", "revision"]),
        **{name: {} for name in ("alpha_pattern", "rank_pattern", "loftq_config")},
        **dict.fromkeys(["fan_in_fan_out", "use_dora", "use_rslora", "lora_bias"], False),
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_dropout": 0.05,
        "megatron_core": "megatron.core",
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "runtime_config": {"ephemeral_gpu_offload": False},
        "task_type": "CAUSAL_LM",
    }
    assert verdict_on(write_adapter(tmp_path, config=config)).accepted


def test_a_config_of_a_megabyte_is_refused(tmp_path: Path) -> None:
    text = json.dumps({**GOOD_CONFIG, "revision": "x" * (1 << 20)}).encode()
    assert verdict_on(write_adapter(tmp_path, config=text)).rule == "config_size"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    files = write_adapter(tmp_path)
    del files["adapter_config.json"]
    verdict = verdict_on(files)
    assert (verdict.rule, verdict.reason) == ("file_missing", "adapter_config.json is missing.")


def test_a_check_beyond_its_memory_is_a_refusal_and_the_parent_goes_on(tmp_path: Path) -> None:
    """Eight megabytes of header in small pieces cost most; the child's limits hold, not ours."""
    many = json.dumps({f"t{n}": {"a": [[[[n]]]]} for n in range(180_000)})
    files = write_adapter(tmp_path, weights=with_header(many))
    assert verdict_on(files).rule in {"tensor_count", "check_limits", "header_length"}
    assert verdict_on(write_adapter(tmp_path)).accepted
