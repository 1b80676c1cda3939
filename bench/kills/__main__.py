"""``python -m bench.kills --kills gateway=20 shipper=20 redis=20 postgres=20 --seed 1``."""

from __future__ import annotations

import argparse
import sys

from bench.kills.run import FULL, KINDS, figures, run
from bench.results import report, this_machine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.kills")
    parser.add_argument(
        "--kills", nargs="+", type=_kill, metavar="part=count", default=FULL.items()
    )
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    machine = this_machine()
    outcome = run(dict(arguments.kills), seed=arguments.seed)
    print(f"seed {outcome.seed}, killed {dict(outcome.killed)}; {machine} before the run\n")
    for sentence in outcome.wrong:
        print(sentence)
    print(f"\nAlso in {report('kills', figures(outcome), machine=machine)}")
    return 1 if outcome.wrong else 0


def _kill(text: str) -> tuple[str, int]:
    kind, _, count = text.partition("=")
    if kind not in KINDS or not count.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no part=count; parts: {', '.join(KINDS)}")
    return kind, int(count)


if __name__ == "__main__":
    sys.exit(main())
