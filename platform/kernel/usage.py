"""The one usage fact: what was metered, for whom, exactly once.

Everything that is metered travels in this shape, from the place where it is measured to the ledger.
``event_id`` and ``occurred_at`` identify the fact; ``fact_hash`` tells two facts with the same
identity apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

SCHEMA_VERSION = 1


class Completeness(StrEnum):
    """How much of the truth a fact holds."""

    FINAL = "final"  # the engine said how much it was, and the answer ended
    ABORTED = "aborted"  # the client or the engine went; quantities are the last cumulative count
    ESTIMATED = "estimated"  # the writer died; quantities are its last checkpoint
    UNKNOWN = "unknown"  # the writer died before any count; the prompt estimate only


class Kind(StrEnum):
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFact:
    """One metered thing. Ids are strings so that the fact is plain data on every wire.

    ``quantities`` per class in whole units; for tokens ``input`` (all prompt tokens),
    ``cached_input`` (the part of ``input`` that came from the prefix cache) and ``output``.
    ``occurred_at`` is microseconds since the epoch: the time of admission.
    """

    event_id: str
    occurred_at: int
    organization: str
    project: str
    key: str
    deployment: str
    version: str
    quantities: Mapping[str, int]
    kind: Kind = Kind.TOKENS
    completeness: Completeness = Completeness.FINAL
    billable: bool = True
    model: str = ""  # the name the customer called, as it was then
    rollout: str | None = None
    arm: str | None = None
    pool: str = ""
    replica: str = ""
    incarnation: str = ""
    cluster: str = ""
    tier: str = "standard"
    finish_reason: str = ""  # why the answer ended, or the error code where it failed
    price_version: str | None = None
    schema_version: int = field(default=SCHEMA_VERSION)

    def fact_hash(self) -> str:
        """SHA-256 over the canonical JSON of all fields, hexadecimal."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


RecordUsage = Callable[[UsageFact], None]
