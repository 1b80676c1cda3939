"""``make bench``: every figure beside its reference in one table, and as JSON in ``results/``.

A part that fails is named and the others still run; the exit code tells. What a part cannot do on
this machine it says in a line, with the reason.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence

from .parts import PARTS, Part
from .results import Row, commit, save, table, this_machine


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    machine = this_machine()
    chosen = [part for part in PARTS if not arguments.parts or part.name in arguments.parts]
    rows: list[Row] = []
    failed: list[str] = []
    for part in chosen:
        found = _run(part, machine, short=arguments.short)
        rows += found or []
        if found is None:
            failed.append(part.name)
    print(f"\nCommit {commit()}; {machine} before the run\n\n{table(rows)}")
    if failed:
        print(f"\nFAILED: {', '.join(failed)}")
    return 1 if failed else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="less of everything, for CI")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"only these of {names}")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.parts) - set(names):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return arguments


def _run(part: Part, machine: str, *, short: bool) -> list[Row] | None:
    """Its rows, written down; nothing when it failed."""
    if reason := part.missing():
        print(f"=== {part.name}: left out: {reason}", flush=True)
        return []
    print(f"=== {part.name}", flush=True)
    begun = time.monotonic()
    try:
        rows = part.measure(short=short)
    except Exception:
        traceback.print_exc()
        return None
    save(f"{part.name}-short" if short else part.name, rows, machine=machine)
    print(f"    {len(rows)} figures in {time.monotonic() - begun:.0f} s", flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
