"""What a benchmark hands over: a table for people and ``bench/results/<name>.json`` for everyone
else.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure beside its reference. ``target`` is a bound of the ratio, or of the value where
    there is no reference; ``met`` is None where there is nothing to meet.
    """

    name: str
    unit: str
    value: float
    reference: str | None = None
    reference_value: float | None = None
    target: float | None = None

    @property
    def ratio(self) -> float | None:
        if self.reference_value is None:
            return None
        return self.value / self.reference_value

    @property
    def met(self) -> bool | None:
        judged = self.value if self.reference is None else self.ratio
        if self.target is None or judged is None:
            return None
        return judged <= self.target


def report(name: str, rows: Sequence[Row], *, machine: str, folder: Path = FOLDER) -> Path:
    """Print the table and write the file."""
    print(table(rows))
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(_document(rows, machine), indent=2) + "\n")
    return path


def table(rows: Sequence[Row]) -> str:
    cells = [("what", "unit", "value", "reference", "its value", "ratio", "target", "met")]
    cells += [
        (
            row.name,
            row.unit,
            _number(row.value),
            row.reference or "-",
            _number(row.reference_value),
            _number(row.ratio),
            _number(row.target),
            {None: "-", True: "met", False: "missed"}[row.met],
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def this_machine() -> str:
    """Processor, cores, system and how busy it is, for the reader to judge absolute figures by."""
    busy = f"load average {os.getloadavg()[0]:.1f}"
    system = f"{platform.system()} {platform.release()}"
    return f"{_processor()}, {os.cpu_count()} cores, {system}, {busy}"


def commit() -> str:
    """The commit that was measured, with ``+changes`` where files differ from it."""
    head = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    return head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _document(rows: Sequence[Row], machine: str) -> dict[str, object]:
    listed = [asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows]
    return {"commit": commit(), "machine": machine, "rows": listed}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=FOLDER.parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
