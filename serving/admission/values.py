"""What is asked of admission and what it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRequest:
    """One call that wants to start. ``grant_id`` is unique for ever: it names what is then held."""

    grant_id: str
    pool: str
    slots: int  # what the pool's ready replicas offer together, now


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A slot of a pool, ours until settled or until its lease runs out."""

    grant_id: str
    pool: str
    at: int  # microseconds since the epoch, by Redis' clock
    is_local: bool = False  # admitted on this process's own share, without Redis


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Nothing was taken. ``reason`` is machine-readable."""

    reason: str
    retry_after_seconds: float
