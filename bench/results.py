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
    """A figure beside its references, nginx as a rule; ``litellm`` is told, never judged.

    ``target`` bounds the ratio, or the value where there is no reference or ``judges_value``; from
    above, or from below where it ``is_floor``. ``met`` is None where there is nothing to meet.
    """

    name: str
    unit: str
    value: float
    reference: str | None = None
    reference_value: float | None = None
    litellm: float | None = None
    target: float | None = None
    judges_value: bool = False
    is_floor: bool = False

    @property
    def ratio(self) -> float | None:
        if self.reference_value is None or self.reference_value <= 0:
            return None
        return self.value / self.reference_value

    @property
    def met(self) -> bool | None:
        by_value = self.reference is None or self.judges_value
        judged = self.value if by_value else self.ratio
        if self.target is None or judged is None:
            return None
        return judged >= self.target if self.is_floor else judged <= self.target

    @property
    def bound(self) -> str:
        """The target as a reader sees it."""
        if self.target is None:
            return "-"
        by_ratio = self.reference is not None and not self.judges_value
        return f"{'>=' if self.is_floor else '<='} {self.target:.4g}{' x' if by_ratio else ''}"


def rows_beside(
    what: str,
    figures: Sequence[tuple[str, str, float | None]],
    ours: Sequence[float],
    theirs: Sequence[float | None],
    *,
    reference: str | None,
) -> list[Row]:
    """A row for each of ``figures`` (name, unit, target) of ``what``; its own value is judged."""
    return [
        Row(
            name=f"{what}, {name}",
            unit=unit,
            value=value,
            reference=reference,
            reference_value=their_value,
            target=target,
            judges_value=True,
        )
        for (name, unit, target), value, their_value in zip(figures, ours, theirs, strict=True)
    ]


def report(name: str, rows: Sequence[Row], *, machine: str, folder: Path = FOLDER) -> Path:
    """Print the table and write the file."""
    print(table(rows))
    return save(name, rows, machine=machine, folder=folder)


def save(name: str, rows: Sequence[Row], *, machine: str, folder: Path = FOLDER) -> Path:
    """Write the file."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(_document(rows, machine), indent=2) + "\n")
    return path


def table(rows: Sequence[Row]) -> str:
    cells = [("what", "unit", "ours", "reference", "LiteLLM", "ratio", "target", "")]
    cells += [
        (
            row.name,
            row.unit,
            _number(row.value),
            _reference(row),
            _number(row.litellm),
            _number(row.ratio),
            row.bound,
            {None: "", True: "met", False: "missed"}[row.met],
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


def _reference(row: Row) -> str:
    if row.reference is None:
        return "-"
    if row.reference_value is None:
        return row.reference
    return f"{_number(row.reference_value)} ({row.reference})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
