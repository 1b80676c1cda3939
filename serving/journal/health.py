"""What the shipper says about itself: a file for the node, and metrics made of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

_FILE = "shipper.json"


class Health(msgspec.Struct, kw_only=True):
    """Counters since the shipper's start, and the state at ``at`` (seconds since the epoch)."""

    pid: int
    at: float = 0.0
    database_error: str = ""
    unshipped_bytes: int = 0
    oldest_unshipped_seconds: float = 0.0
    living_writers: int = 0
    held_writers: dict[str, str] = {}
    shipped_facts: int = 0
    repeated_facts: int = 0
    quarantined_facts: int = 0
    estimated_facts: int = 0
    unknown_facts: int = 0
    torn_bytes: int = 0
    damaged_bytes: int = 0
    unreadable_records: int = 0
    removed_segments: int = 0


_COUNTERS = {
    "shipped_facts": "Facts written to the database.",
    "repeated_facts": "Facts that were in the database already.",
    "quarantined_facts": "Facts that stand aside until a person has looked at them.",
    "estimated_facts": "Facts of dead writers, booked from their last checkpoint.",
    "unknown_facts": "Facts of dead writers that had no checkpoint, booked as the prompt estimate.",
    "torn_bytes": "Bytes cut from the ends of dead writers' journals.",
    "damaged_bytes": "Bytes in the middle of journals that could not be read.",
    "unreadable_records": "Intact records that made no sense.",
    "removed_segments": "Shipped segments removed after their time.",
}
_GAUGES = {
    "unshipped_bytes": "Journal bytes that are not in the database yet.",
    "oldest_unshipped_seconds": "Age of the oldest record that is not in the database yet.",
    "living_writers": "Writers that hold their lock.",
}


def health_write(journal: Path, health: Health) -> None:
    staging = journal / f".{_FILE}"
    staging.write_bytes(msgspec.json.encode(health))
    staging.rename(journal / _FILE)


def health_read(journal: Path) -> Health | None:
    """Nothing where no shipper has ever run."""
    try:
        return msgspec.json.decode((journal / _FILE).read_bytes(), type=Health)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def metrics(journal: Path, *, now: float) -> str:
    """The node's journal in Prometheus' text format; empty where no shipper has ever run."""
    health = health_read(journal)
    if health is None:
        return ""
    heartbeat_age = max(0.0, now - health.at)
    database_up = 0 if health.database_error else 1
    held = len(health.held_writers)
    lines = [
        *_metric("shipper_heartbeat_age_seconds", "gauge", "Since its last sign.", heartbeat_age),
        *_metric("shipper_database_up", "gauge", "It took the last batch.", database_up),
        *_metric("held_writers", "gauge", "Writers that need a later shipper.", held),
    ]
    for name, text in _GAUGES.items():
        lines += _metric(name, "gauge", text, getattr(health, name))
    for name, text in _COUNTERS.items():
        lines += _metric(f"{name}_total", "counter", text, getattr(health, name))
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, text: str, value: float) -> tuple[str, str, str]:
    full = f"tessera_journal_{name}"
    return (f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {value}")
