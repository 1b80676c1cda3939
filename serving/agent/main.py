"""The agent's command line: ``python -m serving.agent launch|run|fetch``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

from serving.agent.agent import Agent
from serving.agent.control import ControlPlane
from serving.agent.engine import Engine
from serving.agent.errors import AgentProblem
from serving.agent.fetch import DEFAULT_CACHE_BYTES, AdapterCache
from serving.agent.launch import launch, require_room_for
from serving.agent.metrics_socket import metrics_path


def main() -> int:
    arguments = _parser().parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    if arguments.command == "launch":
        launch(arguments.run_dir, arguments.engine)
    if arguments.command == "fetch":
        return asyncio.run(_fetch(arguments))
    return asyncio.run(_until_signal(_run(arguments)))


async def _run(arguments: argparse.Namespace) -> None:
    key = os.environ.get("VLLM_API_KEY")
    if not key:
        sys.exit("VLLM_API_KEY is not set: the agent needs the key that its engine asks for.")
    require_room_for(metrics_path(arguments.run_dir))
    control = _control_plane(arguments)
    agent = Agent(
        replica=arguments.replica,
        run_dir=arguments.run_dir,
        control=control,
        cache=AdapterCache(arguments.cache, limit_bytes=arguments.cache_bytes),
        connect=lambda address: Engine(address, key=key),
    )
    try:
        await agent.run()
    finally:
        await control.aclose()


async def _fetch(arguments: argparse.Namespace) -> int:
    """Bring everything ordered into the cache once, before the engine starts."""
    control = _control_plane(arguments)
    cache = AdapterCache(arguments.cache, limit_bytes=arguments.cache_bytes)
    try:
        orders = await control.orders("", wait_seconds=0)
        for adapter in orders.adapters if orders else ():
            print(await cache.ensure(adapter, control))  # noqa: T201 - this command's result
    except AgentProblem as problem:
        print(problem, file=sys.stderr)  # noqa: T201 - this command's result
        return 1
    finally:
        await control.aclose()
    return 0


async def _until_signal(work: Coroutine[None, None, None]) -> int:
    """Run until SIGTERM or SIGINT. What was reported stays true: the engine goes on without us."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task
    return 0


def _control_plane(arguments: argparse.Namespace) -> ControlPlane:
    try:
        token = arguments.token_file.read_text().strip()
    except OSError as error:
        sys.exit(f"The agent's token cannot be read: {arguments.token_file}: {error.strerror}.")
    return ControlPlane(arguments.control_url, replica=arguments.replica, token=token)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.agent")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("launch", help="become the engine, as a new incarnation")
    start.add_argument("--run-dir", type=Path, required=True)
    start.add_argument("engine", nargs="+", help="its command; {incarnation} is filled in")
    for name, text in (("run", "serve an engine"), ("fetch", "fill the cache once")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--replica", required=True)
        command.add_argument("--control-url", required=True)
        command.add_argument("--token-file", type=Path, required=True)
        command.add_argument("--cache", type=Path, required=True)
        command.add_argument("--cache-bytes", type=int, default=DEFAULT_CACHE_BYTES)
        if name == "run":
            command.add_argument("--run-dir", type=Path, required=True)
    return parser
