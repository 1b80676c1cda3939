"""Gateway processes as operators see them: what each last said of itself in its cell's Redis, and
how far its journal is in PostgreSQL. Both doors are the same on one machine and in a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec
from django.conf import settings
from redis.exceptions import RedisError

from billing.models import JournalPosition
from controlplane.admitted import AdmissionUnread, client
from serving.gateway.presence import Sign, presence_key

SILENT_SECONDS = 5.0  # it speaks once a second
_FORGOTTEN_SECONDS = 7 * 86_400
_EJECTED = "tessera_gateway_replica_ejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """``shipped_at``: when the last of its journal reached PostgreSQL; None: nothing did yet."""

    name: str
    writer: str
    pid: int
    up_seconds: float
    silent_seconds: float
    gauges: Mapping[str, float]
    counters: Mapping[str, float]
    shipped_at: datetime | None
    is_closed: bool  # the journal was, so the process is gone

    @property
    def is_silent(self) -> bool:
        return self.silent_seconds > SILENT_SECONDS

    @property
    def ejected(self) -> tuple[str, ...]:
        """Replicas that this process sends nothing but probes."""
        return tuple(sorted(name for name, value in labelled(self.gauges, _EJECTED) if value))

    def gauge(self, name: str) -> int:
        return int(self.gauges.get(f"tessera_gateway_{name}", 0))

    def counter(self, name: str) -> int:
        """Over all labels."""
        full = f"tessera_gateway_{name}"
        return int(sum(v for key, v in self.counters.items() if key.partition("{")[0] == full))


def gateways_now(cell: str | None = None, *, at: datetime) -> tuple[Gateway, ...]:
    """Every process that said something in the last week. Raises ``AdmissionUnread``."""
    try:
        found = client().hgetall(presence_key(cell or settings.TESSERA_CELL))
    except RedisError as error:
        raise AdmissionUnread from error
    now = at.timestamp()
    signs = [sign for raw in found.values() if (sign := _sign(raw)) is not None]
    signs = [sign for sign in signs if now - sign.at < _FORGOTTEN_SECONDS]
    positions = JournalPosition.objects.in_bulk([sign.writer for sign in signs])
    made = (_gateway(sign, positions.get(sign.writer), now) for sign in signs)
    return tuple(sorted(made, key=lambda each: each.name))


def labelled(values: Mapping[str, float], name: str) -> list[tuple[str, float]]:
    """The values of one metric with one label: what the label says, and the number."""
    found = []
    for full, value in values.items():
        before, brace, labels = full.partition("{")
        if brace and before == name:
            found.append((labels.partition('"')[2].rpartition('"')[0], value))
    return found


def _sign(raw: bytes | str) -> Sign | None:
    try:
        return msgspec.json.decode(raw, type=Sign)
    except msgspec.DecodeError:  # of another release
        return None


def _gateway(sign: Sign, position: JournalPosition | None, now: float) -> Gateway:
    return Gateway(
        name=f"{sign.node}/{sign.index}",
        writer=sign.writer,
        pid=sign.pid,
        up_seconds=max(0.0, sign.at - sign.started_at),
        silent_seconds=max(0.0, now - sign.at),
        gauges=sign.gauges,
        counters=sign.counters,
        shipped_at=position.updated_at if position else None,
        is_closed=bool(position and position.closed_at),
    )
