"""The child process that looks into uploaded files: ``python -m serving.artifacts.check``.

Reads one question as JSON from standard input, answers with one verdict on standard output. It
limits itself before it opens anything, so that a hostile file costs at most its own process.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from serving.artifacts.adapter_config import CONFIG_BYTES, read_config
from serving.artifacts.adapter_tensors import require_fitting, require_numbers
from serving.artifacts.refusal import Refused
from serving.artifacts.safetensors import read_tensors

MEMORY_BYTES = 384 << 20  # address space; what is resident stays far below
CPU_SECONDS = 30


def main() -> None:
    _limit()
    question = json.load(sys.stdin)
    verdict: dict[str, Any]
    try:
        verdict = {"accepted": True, "rank": check_adapter(question)}
    except Refused as refusal:
        verdict = {"accepted": False, "rule": refusal.rule, "reason": refusal.reason}
    json.dump(verdict, sys.stdout)


def check_adapter(question: dict[str, Any]) -> int:
    """The adapter's rank, when nothing speaks against it. Raises ``Refused``."""
    files = {name: Path(path) for name, path in question["files"].items()}
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if name not in files:
            raise Refused("file_missing", f"{name} is missing.")
    with files["adapter_config.json"].open("rb") as file:
        text = file.read(CONFIG_BYTES + 1)
    config = read_config(text, base=question["base"], max_rank=question["max_rank"])
    weights = files["adapter_model.safetensors"]
    with weights.open("rb") as file:
        tensors = read_tensors(file, weights.stat().st_size)
        require_fitting(tensors, config=config, modules=question["modules"])
        require_numbers(file, tensors)
    return config.rank


def _limit() -> None:
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main()
