"""docs/metrics.md is what a running gateway answers: names, types, labels."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from serving.gateway.metrics import HELP
from serving.gateway.tests import raw
from serving.gateway.tests.stack import Stack, until

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
_ROW = re.compile(r"^\| `(tessera_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
_SAMPLE = re.compile(r"^(tessera_\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? \S+$", re.MULTILINE)

Documented = dict[str, tuple[str, set[str]]]


def documented() -> Documented:
    """Type and labels by name."""
    rows = _ROW.findall(PAGE.read_text())
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def told(text: str) -> Documented:
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    found: Documented = {name: (kind, set()) for name, kind in kinds.items()}
    for name, labels in _SAMPLE.findall(text):
        found[name][1].update(re.findall(r'(\w+)="', labels))
        found[name][1].discard("le")
    return found


def metrics(stack: Stack) -> str:
    request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with socket.create_connection(stack.metrics_socket.getsockname()) as connection:
        connection.sendall(request)
        return raw.read_all(connection).decode()


def test_what_a_running_gateway_tells_is_documented(bare: Stack) -> None:
    tenant = bare.tenant("support")
    bare.engine()
    bare.serve()
    body = {"model": "support", "prompt": "x", "max_tokens": 1}
    assert raw.ask(bare.port, raw.request("/v1/completions", body, key=tenant.key)).status == 200
    until(lambda: bare.counter("tessera_gateway_requests_total"), what="a snapshot that counts")
    page, found = documented(), told(metrics(bare))
    assert len(found) > 15
    unlike = {
        name: (page.get(name), each) for name, each in found.items() if not like(page, name, each)
    }
    assert unlike == {}, "docs/metrics.md says otherwise"


def like(page: Documented, name: str, each: tuple[str, set[str]]) -> bool:
    """A metric that has no sample yet shows no labels."""
    kind, labels = page.get(name, ("", set()))
    return kind == each[0] and each[1] in (labels, set())


def test_the_page_names_every_metric_that_a_gateway_can_tell_and_no_other() -> None:
    assert {name for name in documented() if name.startswith("tessera_gateway_")} == set(HELP)
