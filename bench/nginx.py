"""nginx as a plain proxy: the reference that the gateway's cost is told in.

It passes bytes on and does nothing else: no log, no limits, connections to the engine kept open,
and no buffering, so that a streamed chunk leaves as it comes.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .processes import descendants, running

MISSING = "nginx is not installed here (Debian: apt-get install nginx-light), so it is left out."

_CONFIGURATION = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
worker_rlimit_nofile {descriptors};
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    tcp_nodelay on;
    upstream engine {{
        server {engine};
        keepalive 512;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    address: str
    pids: tuple[int, ...]
    version: str


def find() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def plain_proxy(binary: str, *, folder: Path, engine_socket: Path) -> Iterator[Nginx]:
    """nginx in front of the engine on ``engine_socket``, with one worker."""
    folder.mkdir()
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            user="user root;" if os.geteuid() == 0 else "",  # its worker may open our folders
            folder=folder,
            engine=f"unix:{engine_socket}",
            port=port,
        )
    )
    argv = [binary, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")]
    with running(argv, log=folder / "log", ready=lambda: is_listening(port)) as process:
        pids = tuple(descendants(process.pid))
        yield Nginx(f"http://127.0.0.1:{port}", pids, _version(binary))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _version(binary: str) -> str:
    told = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True)
    return told.stderr.strip().removeprefix("nginx version: ")
