"""A gateway's front for the playground: the answer is set by the test, CORS is as the real one's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REQUEST_ID = "req_0123456789"


class Gateway(ThreadingHTTPServer):
    """``words`` are streamed one by one; ``go_on`` holds the stream after the first of them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.words = ["Within", " 30", " days."]
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.left = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that stops listening is part of the test."""


@contextmanager
def running_gateway() -> Iterator[Gateway]:
    with Gateway() as gateway:
        thread = threading.Thread(target=gateway.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield gateway
        finally:
            gateway.go_on.set()
            gateway.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_OPTIONS(self) -> None:
        self._head(204)

    def do_POST(self) -> None:
        gateway = self.server
        gateway.keys.append(self.headers["Authorization"])
        gateway.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if gateway.refusal is not None:
            status, body = gateway.refusal
            gateway.refusal = None
            self._head(status, "application/json")
            self.wfile.write(json.dumps(body).encode())
            return
        self._head(200, "text/event-stream")
        try:
            self._stream(gateway)
        except (BrokenPipeError, ConnectionResetError):
            gateway.left.set()

    def _stream(self, gateway: Gateway) -> None:
        for number, word in enumerate(gateway.words):
            self._event({"choices": [{"delta": {"content": word}, "finish_reason": None}]})
            if number == 0:
                while not gateway.go_on.wait(0.05):
                    self.wfile.write(b": waiting\n\n")
        usage = {"prompt_tokens": 12, "completion_tokens": len(gateway.words)}
        self._event({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, body: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())

    def _head(self, status: int, content_type: str = "") -> None:
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Access-Control-Allow-Origin", self.headers["Origin"])
        self.send_header("Access-Control-Allow-Headers", "authorization, content-type")
        self.send_header("Access-Control-Expose-Headers", "x-request-id")
        self.send_header("x-request-id", REQUEST_ID)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Not on the terminal."""
