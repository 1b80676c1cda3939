"""vLLM's routes: who may call what, and which answer has which shape."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import msgspec

from .adapters import AdapterMissing, AdapterUnfit, adapter_read
from .asks import CHAT_PATH, COMPLETION_PATH, Refused, malformed, understand
from .engine import Engine
from .faults import Fault
from .generation import Generation
from .http import Connection, Request
from .shapes import VERSION, error_body, model_card

_Body = TypeVar("_Body")

_TEXT = b""
_METRICS = b"content-type: text/plain; version=1.0.0; charset=utf-8\r\n"
_JSON = b"content-type: application/json\r\n"
_GUARDED = ("/v1", "/sim")


class LoadBody(msgspec.Struct):
    lora_name: str
    lora_path: str
    load_inplace: bool = False


class UnloadBody(msgspec.Struct):
    lora_name: str


class App:
    """Answers every request of every connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._token = engine.options.api_key.encode()
        self._routes: dict[tuple[str, str], Callable[[Request, Connection], Generation | None]] = {
            ("POST", CHAT_PATH): self._generate,
            ("POST", COMPLETION_PATH): self._generate,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/load_lora_adapter"): self._load,
            ("POST", "/v1/unload_lora_adapter"): self._unload,
            ("GET", "/health"): self._health,
            ("GET", "/version"): self._version,
            ("GET", "/metrics"): self._metrics,
            ("POST", "/sim/faults"): self._order_fault,
            ("GET", "/sim/faults"): self._list_faults,
            ("DELETE", "/sim/faults"): self._clear_faults,
        }
        self._paths = {path for _, path in self._routes}

    def handle(self, request: Request, reply: Connection) -> Generation | None:
        if not self._may(request):
            reply.send(401, b'{"error":"Unauthorized"}')
            return None
        route = self._routes.get((request.method, request.path))
        if route is None:
            _no_route(reply, known=request.path in self._paths)
            return None
        try:
            return route(request, reply)
        except Refused as refusal:
            _refuse(reply, refusal)
            return None

    def _may(self, request: Request) -> bool:
        if not self._token or not request.path.startswith(_GUARDED):
            return True
        scheme, _, token = request.headers.get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token, self._token)

    def _generate(self, request: Request, reply: Connection) -> Generation | None:
        options = self._engine.options
        request_id = request.headers.get(b"x-request-id", b"").decode("latin-1")
        ask = understand(request.path, request.body, options=options, request_id=request_id)
        model = ask.model or options.served_model_name[0]
        self._engine.fingerprint(model)
        fault = self._engine.faults.take(model)
        if fault is not None and fault.kind in _BEFORE:
            _BEFORE[fault.kind](reply, fault)
            return None
        if ask.stream:
            reply.start_stream()
        return self._engine.submit(ask, reply, path=request.path, model=model, fault=fault)

    def _models(self, _: Request, reply: Connection) -> None:
        options = self._engine.options
        base = [
            model_card(name, root=options.model, parent=None, context=options.max_model_len)
            for name in options.served_model_name
        ]
        parent = options.served_model_name[0]
        adapters = [
            model_card(adapter.name, root=adapter.path, parent=parent, context=None)
            for adapter in self._engine.adapters.values()
        ]
        _send_json(reply, {"object": "list", "data": base + adapters})

    def _load(self, request: Request, reply: Connection) -> None:
        body = _decode(request.body, LoadBody)
        engine = self._engine
        if body.lora_name in engine.options.served_model_name:
            _misuse(f"The lora adapter '{body.lora_name}' conflicts with a served base model.")
        if body.lora_name in engine.adapters and not body.load_inplace:
            _misuse(
                f"The lora adapter '{body.lora_name}' has already been loaded. If you want to load "
                "the adapter in place, set 'load_inplace' to True."
            )
        try:
            adapter = adapter_read(
                body.lora_name, body.lora_path, max_rank=engine.options.max_lora_rank
            )
        except AdapterMissing as error:
            raise Refused(404, str(error), kind="NotFoundError") from error
        except AdapterUnfit as error:
            message = f"Call to add_lora method failed: Worker failed with error '{error}'"
            raise Refused(500, message, kind="InternalServerError") from error
        engine.adapters[body.lora_name] = adapter
        _send_text(reply, f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    def _unload(self, request: Request, reply: Connection) -> None:
        name = _decode(request.body, UnloadBody).lora_name
        if name not in self._engine.adapters:
            message = f"The lora adapter '{name}' cannot be found."
            raise Refused(404, message, kind="NotFoundError")
        del self._engine.adapters[name]
        _send_text(reply, f"Success: LoRA adapter '{name}' removed successfully.")

    def _health(self, _: Request, reply: Connection) -> None:
        reply.send(503 if self._engine.faults.is_sick else 200, b"", headers=_TEXT)

    def _version(self, _: Request, reply: Connection) -> None:
        _send_json(reply, {"version": VERSION})

    def _metrics(self, _: Request, reply: Connection) -> None:
        name = self._engine.options.served_model_name[0]
        text = self._engine.metrics.text(name, self._engine.gauges())
        reply.send(200, text, headers=_METRICS)

    def _order_fault(self, request: Request, reply: Connection) -> None:
        fault = _decode(request.body, Fault)
        self._engine.faults.order(fault)
        _send_json(reply, fault)

    def _list_faults(self, _: Request, reply: Connection) -> None:
        _send_json(reply, self._engine.faults.ordered)

    def _clear_faults(self, _: Request, reply: Connection) -> None:
        self._engine.faults.clear()
        _send_json(reply, [])


# Faults that take the place of an answer


def _answer_status(reply: Connection, fault: Fault) -> None:
    body = error_body("A fault that was ordered.", kind="SimulatedError", status=fault.status)
    headers = _JSON
    if fault.retry_after is not None:
        headers += b"retry-after: %d\r\n" % fault.retry_after
    reply.send(fault.status, body, headers=headers)


def _answer_huge_header(reply: Connection, fault: Fault) -> None:
    reply.send(200, b"{}", headers=_JSON + b"x-huge: " + b"a" * fault.size + b"\r\n")


def _answer_nothing(reply: Connection, fault: Fault) -> None:
    """The request hangs until the peer leaves."""


_BEFORE: dict[str, Callable[[Connection, Fault], None]] = {
    "status": _answer_status,
    "huge_header": _answer_huge_header,
    "wedged": _answer_nothing,
}


def _decode(raw: bytes, kind: type[_Body]) -> _Body:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise malformed(error) from error


def _misuse(message: str) -> NoReturn:
    raise Refused(400, message, kind="InvalidUserInput")


def _refuse(reply: Connection, refusal: Refused) -> None:
    reply.send(
        refusal.status,
        error_body(refusal.message, kind=refusal.kind, status=refusal.status, param=refusal.param),
    )


def _no_route(reply: Connection, *, known: bool) -> None:
    if known:
        reply.send(405, b'{"detail":"Method Not Allowed"}')
    else:
        reply.send(404, b'{"detail":"Not Found"}')


def _send_json(reply: Connection, value: Any) -> None:
    reply.send(200, msgspec.json.encode(value))


def _send_text(reply: Connection, text: str) -> None:
    reply.send(200, text.encode(), headers=_TEXT)
