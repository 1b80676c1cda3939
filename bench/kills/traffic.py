"""Mixed requests: chats and completions, streamed and plain, some left by their client midway."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from bench.kills.verdict import Asked
from bench.load.client import Reply, connect, request_bytes

_ANSWER_SECONDS = 60.0
_AT_ONCE = 16
_RETRY_SECONDS = 0.2
_MOST_TRIES = 100


@dataclass(frozen=True, slots=True)
class Order:
    """One request to make."""

    payload: bytes
    is_stream: bool
    leave_after: float | None  # seconds until the client hangs up


def orders(count: int, *, keys: dict[str, str], dice: random.Random) -> list[Order]:
    """``keys`` are by model name."""
    return [_order(number, keys, dice) for number in range(count)]


async def make_until(
    address: str, is_over: Callable[[], bool], *, keys: dict[str, str], dice: random.Random
) -> list[Asked]:
    """Ask without pause until it is over; what was begun is finished."""
    seen: list[Asked] = []
    numbers = itertools.count()

    async def one() -> None:
        while not is_over():
            seen.append(await _ask(address, _order(next(numbers), keys, dice)))

    await asyncio.gather(*(one() for _ in range(_AT_ONCE)))
    return seen


async def make(address: str, wanted: list[Order]) -> list[Asked]:
    """Ask them all, some at a time; whatever goes wrong is in what was seen."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(order: Order) -> Asked:
        async with room:
            return await _ask(address, order)

    return list(await asyncio.gather(*map(one, wanted)))


def _order(number: int, keys: dict[str, str], dice: random.Random) -> Order:
    model, key = dice.choice(list(keys.items()))
    is_stream = dice.random() < 0.6
    body: dict[str, object] = {
        "model": model,
        "max_tokens": dice.randrange(5, 90),
        "ignore_eos": True,
        "stream": is_stream,
    }
    text = f"Question {number}: " + "tell me more. " * dice.randrange(1, 8)
    if number % 2:
        path, body["prompt"] = "/v1/completions", text
    else:
        path, body["messages"] = "/v1/chat/completions", [{"role": "user", "content": text}]
    leaves = is_stream and dice.random() < 0.1
    return Order(
        payload=request_bytes(path, json.dumps(body).encode(), key=key),
        is_stream=is_stream,
        leave_after=dice.uniform(0.1, 2.0) if leaves else None,
    )


async def _ask(address: str, order: Order) -> Asked:
    """As a well-behaved client asks: 503 is asked again a little later."""
    for _ in range(_MOST_TRIES):
        reply = await _reply(address, order)
        if reply.status != 503:
            break
        await asyncio.sleep(_RETRY_SECONDS)
    return _seen(order, reply)


async def _reply(address: str, order: Order) -> Reply:
    try:
        client = await connect(address)
    except OSError as error:
        return Reply(0.0, 0.0, failure=str(error))
    waiting = client.ask(order.payload, keep_body=True)
    if order.leave_after is not None:
        asyncio.get_running_loop().call_later(order.leave_after, client.leave)
    try:
        return await asyncio.wait_for(waiting, _ANSWER_SECONDS)
    except TimeoutError:
        return Reply(0.0, 0.0, failure="no answer")
    finally:
        client.leave()


def _seen(order: Order, reply: Reply) -> Asked:
    request = reply.request_id.removeprefix("req_")
    if not order.is_stream:
        return Asked(request, is_stream=False, is_whole=reply.is_success)
    whole = reply.is_success and reply.body.endswith(b"data: [DONE]\n\n")
    return Asked(request, is_stream=True, is_whole=whole, tokens=_tokens(reply.body))


def _tokens(body: bytes) -> int:
    """Events that carry text: the simulator sends one per token."""
    events = [e.removeprefix(b"data: ") for e in body.split(b"\n\n")[:-1]]
    count = 0
    for event in events:
        if event.startswith(b"{"):
            for choice in json.loads(event).get("choices", ()):
                text = choice.get("text") or choice.get("delta", {}).get("content")
                count += bool(text)
    return count
