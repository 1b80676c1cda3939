"""What OpenAI publishes about its answers, and a client whose every exchange is held against it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import yaml

SPEC = Path(__file__).resolve().parents[4] / "shared" / "openai" / "openapi.yaml"
ANSWERS = {
    ("POST", "/v1/chat/completions", False): "CreateChatCompletionResponse",
    ("POST", "/v1/chat/completions", True): "CreateChatCompletionStreamResponse",
    ("POST", "/v1/completions", False): "CreateCompletionResponse",
    ("POST", "/v1/completions", True): "CreateCompletionResponse",
    ("GET", "/v1/models", False): "ListModelsResponse",
    ("GET", "/v1/models/", False): "Model",
}


@dataclass
class Exchange:
    """One answer as it came over the wire."""

    method: str
    path: str
    status: int
    headers: httpx2.Headers
    body: bytes = b""

    @property
    def is_stream(self) -> bool:
        return self.headers["content-type"].startswith("text/event-stream")

    @property
    def is_whole(self) -> bool:
        """Whether its reader stayed to the end."""
        return not self.is_stream or self.body.endswith(b"data: [DONE]\n\n")

    def documents(self) -> Iterator[Any]:
        """Its JSON: the body, or each event of a stream."""
        if not self.is_stream:
            yield json.loads(self.body)
            return
        *events, rest = self.body.split(b"\n\n")
        assert rest == b"", f"a stream ends within an event: {rest[-200:]!r}"
        for event in events:
            if event != b"data: [DONE]" and not event.startswith(b":"):
                yield json.loads(event.removeprefix(b"data: "))

    def schema(self, document: Any) -> str:
        if self.status != 200 or "error" in document:
            return "ErrorResponse"
        path = "/v1/models/" if self.path.startswith("/v1/models/") else self.path
        return ANSWERS[self.method, path, self.is_stream]


class Recorder(httpx2.BaseTransport):
    """Sends, and keeps what came back, byte for byte."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._inner = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._inner.handle_request(request)
        exchange = Exchange(
            request.method, request.url.path, response.status_code, response.headers
        )
        self.exchanges.append(exchange)
        assert isinstance(response.stream, httpx2.SyncByteStream)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Tee(response.stream, exchange),
            extensions=response.extensions,
        )

    def close(self) -> None:
        self._inner.close()


@dataclass
class _Tee(httpx2.SyncByteStream):
    stream: httpx2.SyncByteStream
    exchange: Exchange

    def __iter__(self) -> Iterator[bytes]:
        for part in self.stream:
            self.exchange.body += part
            yield part

    def close(self) -> None:
        self.stream.close()


@dataclass
class Published:
    """The schemas, by name; ``check`` fails with the places that break one."""

    document: dict[str, Any]
    _validators: dict[str, Any] = field(default_factory=dict)

    def check(self, name: str, value: Any) -> None:
        if name not in self._validators:
            schema = {"$ref": f"#/components/schemas/{name}", **self.document}
            self._validators[name] = jsonschema.Draft202012Validator(schema)
        errors = sorted(self._validators[name].iter_errors(value), key=lambda e: str(e.json_path))
        told = [f"{error.json_path}: {error.message[:200]}" for error in errors]
        assert not told, f"{name}: {told}\n{json.dumps(value)[:2000]}"


@cache
def published() -> Published | None:
    """Nothing where the file is not beside the repository. Reading it takes a second or two."""
    if not SPEC.exists():
        return None
    text = yaml.load(SPEC.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    schemas = _nullable(text["components"]["schemas"])
    choice = schemas["CreateCompletionResponse"]["properties"]["choices"]["items"]["properties"]
    # One schema for both; only its description says that it is a stream's, too, where no choice has
    # finished until its last event.
    choice["finish_reason"] = {"anyOf": [choice["finish_reason"], {"type": "null"}]}
    return Published({"components": {"schemas": schemas}})


def _nullable(schema: Any) -> Any:
    """``nullable`` is OpenAPI 3.0's word, which JSON Schema does not know; the file uses both."""
    if isinstance(schema, list):
        return [_nullable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _nullable(value) for name, value in schema.items() if name != "nullable"}
    return {"anyOf": [kept, {"type": "null"}]} if schema.get("nullable") is True else kept
