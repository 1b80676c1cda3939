"""Starts the pretended engine and stops it on SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import suppress

import uvloop

from .app import App
from .engine import Engine
from .http import Connection
from .journal import Journal
from .options import Options, parse

_BACKLOG = 2048


def main() -> None:
    options, ignored = parse()
    if ignored:
        print(f"enginesim: without meaning here: {' '.join(ignored)}", file=sys.stderr)
    time.sleep(options.start_seconds)
    uvloop.run(serve(options))


async def serve(options: Options) -> None:
    """Serves until a signal comes; answers under way have ``shutdown_timeout`` to end."""
    journal = Journal(options.journal)
    engine = Engine(options, journal)
    app = App(engine)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    servers = await _listen(options, app)
    print(f"enginesim: {', '.join(options.served_model_name)} on {_place(servers[0])}", flush=True)
    await stopped.wait()
    for server in servers:
        server.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(options.shutdown_timeout):
            await engine.idle.wait()
    journal.close()


async def _listen(options: Options, app: App) -> list[asyncio.Server]:
    loop = asyncio.get_running_loop()
    servers = []
    if options.uds is not None:
        options.uds.unlink(missing_ok=True)
        servers.append(
            await loop.create_unix_server(
                lambda: Connection(app.handle), str(options.uds), backlog=_BACKLOG
            )
        )
    port = options.also_port if options.uds is not None else options.port
    if port or options.uds is None:
        servers.append(
            await loop.create_server(
                lambda: Connection(app.handle), options.host, port, backlog=_BACKLOG
            )
        )
    return servers


def _place(server: asyncio.Server) -> str:
    name = server.sockets[0].getsockname()
    return f"unix:{name}" if isinstance(name, str) else f"http://{name[0]}:{name[1]}"
