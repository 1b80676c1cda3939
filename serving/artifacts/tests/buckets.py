"""Stores to test against: moto in a process of its own, and one that does what a test says."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from serving.artifacts.s3 import S3Store, s3_client

BUCKET = "tessera"
START_SECONDS = 60.0

Request = BaseHTTPRequestHandler
Answer = Callable[[Request], object]


@contextmanager
def moto(log: Path) -> Iterator[str]:
    """An S3 on loopback for as long as the ``with`` lasts; its address."""
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield _address(process, log)
    finally:
        process.kill()
        process.wait()


def store_at(address: str, *, bucket: str = BUCKET, read_seconds: float = 10.0) -> S3Store:
    client = s3_client(
        endpoint=address, region="us-east-1", connect_seconds=2.0, read_seconds=read_seconds
    )
    return S3Store(client, bucket)


def make_bucket(address: str) -> None:
    s3_client(endpoint=address, region="us-east-1").create_bucket(Bucket=BUCKET)


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A server that leaves every request to ``answer``; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65_537)
            if self.raw_requestline and self.parse_request():
                answer(self)
            else:
                self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def reply(request: Request, status: int, body: bytes = b"", *, length: int | None = None) -> None:
    """Answer, and say that ``length`` bytes follow where that is not how many do."""
    request.send_response(status)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


def refusal(request: Request, status: int, code: str) -> None:
    body_of(request)
    reply(request, status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())


def body_of(request: Request) -> bytes:
    return request.rfile.read(int(request.headers.get("Content-Length") or 0))


def checksum(data: bytes) -> str:
    return b64encode(sha256(data).digest()).decode()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if said := re.search(rb"http://127\.0\.0\.1:\d+", log.read_bytes()):
            return said[0].decode()
        time.sleep(0.05)
    raise RuntimeError(f"moto did not start: {log.read_text()[-2000:]}")
