"""What is served at which path, and what every answer gets: request id, CORS, error shape, log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from kernel.clock import Clock, monotonic, wall
from kernel.errors import DomainError
from kernel.ids import request_id
from serving.contracts import Route
from serving.gateway import idempotency
from serving.gateway.access import AccessLog, Line
from serving.gateway.addresses import Proxies, client_address
from serving.gateway.errors import (
    GatewayError,
    InternalError,
    UnknownPath,
    WrongMedia,
    WrongMethod,
    error_body,
    error_event,
    error_headers,
)
from serving.gateway.exchange import Exchange
from serving.gateway.fields import Wanted, parse_chat, parse_completion
from serving.gateway.head import Request
from serving.gateway.held import Infer
from serving.gateway.idempotency import Idempotency
from serving.gateway.patience import Patience
from serving.gateway.ratelimit_headers import EXPOSED
from serving.gateway.reply import Reply
from serving.gateway.who import Known

log = logging.getLogger(__name__)

_MODELS = b"/v1/models"
_READ_TIMEOUT = b"x-stainless-read-timeout"  # what stock clients say of themselves
_LONGEST_TIMEOUT = 10  # characters of a number of seconds
PARSERS: dict[bytes, Callable[[bytes], Wanted]] = {
    b"/v1/chat/completions": parse_chat,
    b"/v1/completions": parse_completion,
}
_ROUTES = {b"/v1/chat/completions": "chat", b"/v1/completions": "completions", _MODELS: "models"}
_CLIENT_GONE = 499  # as nginx writes it in its log; nobody is there to receive it
_PREFLIGHT = (
    b"access-control-allow-methods: GET, POST, OPTIONS\r\n"
    b"access-control-allow-headers: authorization, content-type, idempotency-key, x-stainless-arch,"
    b" x-stainless-async, x-stainless-helper-method, x-stainless-lang, x-stainless-os,"
    b" x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime,"
    b" x-stainless-runtime-version, x-stainless-timeout, x-stainless-read-timeout\r\n"
    b"access-control-max-age: 600\r\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The handler of the public listener."""

    exchange: Exchange
    infer: Infer
    idempotency: Idempotency
    log: AccessLog
    origins: frozenset[str]
    proxies: Proxies
    patience: Patience
    clock: Clock = monotonic
    wall_clock: Clock = wall

    async def __call__(self, request: Request, reply: Reply) -> None:
        started = self.clock()
        line = Line(
            request_id=request_id(),
            method=request.method.decode("latin-1"),
            path=request.path[:200].decode("latin-1"),
            peer=client_address(
                request.peer, request.headers.get(b"x-forwarded-for"), self.proxies
            ),
            at=self.wall_clock(),
        )
        reply.extra = self._headers(request, line)
        try:
            await self._dispatch(request, reply, line)
        except DomainError as error:
            _refuse(reply, error, line)
        except asyncio.CancelledError:
            line.code = line.code or "client_gone"
            line.status = _CLIENT_GONE
            raise
        except Exception:
            log.exception("request %s failed", line.request_id)
            _refuse(reply, InternalError(), line)
        finally:
            self._record(request, reply, line, started)

    def door_refused(self, error: GatewayError) -> None:
        """A request that never became one still leaves its line."""
        self.exchange.metrics.count("tessera_gateway_refused_connections_total", "code", error.code)
        self.log.add(
            Line(
                request_id=request_id(),
                method="",
                path="",
                peer="",
                at=self.wall_clock(),
                status=error.status,
                code=error.rule or error.code,
            )
        )

    async def _dispatch(self, request: Request, reply: Reply, line: Line) -> None:
        path = request.path
        if request.method == b"OPTIONS":
            reply.send(204, b"", extra=_PREFLIGHT if b"origin" in request.headers else b"")
        elif path in PARSERS:
            await self._infer(request, reply, line)
        elif path == _MODELS or path.startswith(_MODELS + b"/"):
            await self._models(request, reply, line)
        else:
            raise UnknownPath

    async def _infer(self, request: Request, reply: Reply, line: Line) -> None:
        if request.method != b"POST":
            raise WrongMethod("Use POST here.")
        known = await self.exchange.identify(request.headers.get(b"authorization"), line)
        if not request.headers.get(b"content-type", b"").lower().startswith(b"application/json"):
            raise WrongMedia
        wanted = PARSERS[request.path](request.body)
        wanted.client_seconds = client_seconds(request.headers.get(_READ_TIMEOUT))
        if not wanted.is_stream:
            await self._answer(request, known, wanted, reply, line)
            return
        self.patience.begin(reply)
        try:
            await self._answer(request, known, wanted, reply, line)
        finally:
            self.patience.end(reply)

    async def _answer(
        self, request: Request, known: Known, wanted: Wanted, reply: Reply, line: Line
    ) -> None:
        key = request.headers.get(idempotency.HEADER)
        if key is None:
            await self.infer(known, wanted, reply, line)
            return
        # A model that this key may not call is absent, whatever the project's other keys asked it.
        self.exchange.directory().route(known.principal, wanted.model)
        await self.idempotency.infer(key, request, known, wanted, reply, line)

    async def _models(self, request: Request, reply: Reply, line: Line) -> None:
        if request.method != b"GET":
            raise WrongMethod("Use GET here.")
        known = await self.exchange.identify(request.headers.get(b"authorization"), line)
        directory = self.exchange.directory()
        name = request.path.removeprefix(_MODELS).lstrip(b"/").decode("utf-8", "replace")
        if name:
            reply.send(200, _encode(_model(directory.route(known.principal, name))))
            return
        models = [_model(route) for route in directory.routes_for(known.principal)]
        reply.send(200, _encode({"object": "list", "data": models}))

    def _headers(self, request: Request, line: Line) -> bytes:
        headers = b"x-request-id: %b\r\n" % line.request_id.encode()
        origin = request.headers.get(b"origin")
        if origin is None or origin.decode("latin-1") not in self.origins:
            return headers
        return b"".join(
            (
                headers,
                b"access-control-allow-origin: ",
                origin,
                b"\r\naccess-control-expose-headers: ",
                EXPOSED,
                b"\r\nvary: Origin\r\n",
            )
        )

    def _record(self, request: Request, reply: Reply, line: Line, started: float) -> None:
        seconds = self.clock() - started
        line.status = line.status or reply.status
        line.total_ms = round(seconds * 1000, 3)
        self.log.add(line)
        self.exchange.metrics.answered(_ROUTES.get(request.path, "other"), line.status, seconds)


def client_seconds(said: bytes | None) -> float | None:
    """How long a client reads before it gives up, from its own header; nothing where it is odd."""
    if said is None or len(said) > _LONGEST_TIMEOUT:
        return None
    try:
        seconds = float(said)
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None


def _refuse(reply: Reply, error: DomainError, line: Line) -> None:
    line.code = error.code
    if reply.is_waited_for:
        reply.finish(error_event(error))
    elif not reply.has_started:
        reply.send(error.status, error_body(error), extra=error_headers(error))


def _model(route: Route) -> dict[str, Any]:
    return {"id": route.name, "object": "model", "created": route.created, "owned_by": "you"}


_encode = msgspec.json.Encoder().encode
