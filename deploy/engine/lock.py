#!/usr/bin/env python3
"""Write requirements.txt and torch.txt from requirements.in: pinned, with hashes, for every Python.

One resolution for everything, so that torch and the rest agree, then split in two: torch and its
CUDA libraries are installed from PyPI only where the index of CPU builds does not answer.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
GPU_FAMILY = re.compile(r"(torch|triton|nvidia-|cuda-)")
HEADER = "# Made by deploy/engine/lock.py from requirements.in; do not edit.\n"


def main() -> int:
    compiled = subprocess.run(
        [
            "uv", "pip", "compile", "requirements.in", "--universal", "--python-version", "3.11",
            "--generate-hashes", "--only-binary", ":all:",
            "--no-header", "--no-annotate", "--quiet",
        ],
        cwd=HERE,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout  # fmt: skip
    entries = re.findall(r"^[a-z0-9].*\n(?:^ +--hash.*\n)*", compiled, re.MULTILINE)
    linux = [entry for entry in entries if "sys_platform == 'win32'" not in entry.split("\\")[0]]
    torch = [entry for entry in linux if GPU_FAMILY.match(entry)]
    rest = [entry for entry in linux if entry not in torch]
    (HERE / "torch.txt").write_text(HEADER + "".join(torch))
    (HERE / "requirements.txt").write_text(HEADER + "".join(rest))
    sys.stdout.write(f"{len(torch)} + {len(rest)} requirements\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
