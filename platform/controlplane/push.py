"""What the control plane tells the gateways at once, over the stream of their cell."""

from __future__ import annotations

from functools import cache

from django.conf import settings
from redis import Redis

from serving.contracts import cell_stream

# Gateways read within seconds or not at all; what they miss they learn when a principal's age is
# up.
_KEPT_ENTRIES = 10_000


def key_revoked(key_id: str) -> None:
    """Gateways forget this key now, and end what it streams."""
    stream = cell_stream(settings.TESSERA_CELL)
    _redis().xadd(
        stream, {"kind": "revoked", "key_id": key_id}, maxlen=_KEPT_ENTRIES, approximate=True
    )


@cache
def _redis() -> Redis:
    return Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)
