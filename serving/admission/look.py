"""What there is in a cell's Redis: for metrics, the operators' page and scaling. Reads only.

``looking`` makes the arguments of one ``EVAL`` for whichever client is at hand; the functions below
it read the answers. Who looks needs no writer and begins no epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.admission.keys import admission_prefix
from serving.admission.script import SCRIPT

TIERS = ("premium", "standard", "free")


@dataclass(frozen=True, slots=True, kw_only=True)
class TierLook:
    waiting: int
    longest_wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLook:
    """A pool now. Tokens are upper bounds, as the living processes last reported them (1 s)."""

    pool: str
    slots: int
    taken: int
    waiting: int
    waiting_bytes: int
    average_output: int
    tiers: dict[str, TierLook]
    held_tokens: int
    waiting_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLook:
    """Nano-USD in this epoch. ``base`` counts only where it is loaded."""

    is_loaded: bool
    base: int
    spent: int
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLook:
    """``writers`` that have announced themselves, with their open holds."""

    epoch: str
    is_complete: bool
    writers: dict[str, int]


def looking(cell: str, *operations: Sequence[Any]) -> tuple[str, int, str, bytes]:
    """The arguments of ``EVAL``; its answer is {now, epoch, {}, answer of each operation...}."""
    header = ["", "", "", "", 0, 0, [0, 0, 0, 0]]
    packed = msgspec.msgpack.encode([header, [list(one) for one in operations]])
    return SCRIPT.decode(), 1, admission_prefix(cell), packed


def pools_from(answer: Sequence[bytes]) -> list[str]:
    """Of ``("look_pools",)``."""
    return sorted(name.decode() for name in answer)


def pool_from(pool: str, answer: Sequence[Any]) -> PoolLook:
    """Of ``("look_pool", pool)``."""
    slots, taken, waiting, waiting_bytes, average, tiers, reports = answer
    reported = [msgspec.json.decode(one) for one in reports[1::2]]
    return PoolLook(
        pool=pool,
        slots=slots,
        taken=taken,
        waiting=waiting,
        waiting_bytes=waiting_bytes,
        average_output=average,
        tiers={
            name: TierLook(
                waiting=tiers[2 * index], longest_wait_seconds=tiers[2 * index + 1] / 1e6
            )
            for index, name in enumerate(TIERS)
        },
        held_tokens=sum(one[1] for one in reported),
        waiting_tokens=sum(one[3] for one in reported),
    )


def account_from(answer: Sequence[int]) -> AccountLook:
    """Of ``("look_account", account)``."""
    is_loaded, base, spent, held = answer
    return AccountLook(is_loaded=bool(is_loaded), base=base, spent=spent, held=held)


def epoch_from(answer: Sequence[Any]) -> EpochLook:
    """Of ``("look_epoch",)``."""
    epoch, is_complete, writers = answer
    names = [name.decode() for name in writers[::2]]
    return EpochLook(
        epoch=epoch.decode(),
        is_complete=bool(is_complete),
        writers=dict(zip(names, writers[1::2], strict=True)),
    )
