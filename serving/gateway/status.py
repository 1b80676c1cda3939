"""The listener of operators: health, and the metrics of all processes of this node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kernel.clock import Clock, wall
from serving.gateway.head import Request
from serving.gateway.metrics import exposition, read_snapshots
from serving.gateway.reply import Reply

_TEXT = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """``/health``: this process runs. ``/ready``: it has routes. ``/metrics``: what was counted."""

    run: Path
    is_ready: Callable[[], bool]
    clock: Clock = wall

    async def __call__(self, request: Request, reply: Reply) -> None:
        match request.path:
            case b"/health":
                reply.send(200, b'{"status":"ok"}')
            case b"/ready" if self.is_ready():
                reply.send(200, b'{"status":"ready"}')
            case b"/ready":
                reply.send(503, b'{"status":"no routes document yet"}')
            case b"/metrics":
                text = exposition(read_snapshots(self.run), now=self.clock())
                reply.send(200, text, content_type=_TEXT)
            case _:
                reply.send(404, b'{"status":"not found"}')
